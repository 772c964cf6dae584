-- One policy, three ways out. The program that runs it says in its environment where its servers are.
local kumo = require 'kumo'

local smtp_port = os.getenv 'QUICKSTART_SMTP_PORT'
local maildirs = os.getenv 'QUICKSTART_MAILDIRS'
local webhook = os.getenv 'QUICKSTART_WEBHOOK'

kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  -- To the hosts of a list instead of the domain's MX records.
  if domain == 'list.test' then
    return kumo.make_queue_config {
      protocol = {
        smtp = {
          mx_list = {
            { name = 'mail.test', addr = '127.0.0.1:' .. smtp_port },
          },
        },
      },
    }
  end

  -- Into a Maildir for each user.
  if domain == 'maildir.test' then
    return kumo.make_queue_config {
      protocol = {
        maildir_path = maildirs .. '/{{ domain_part }}/{{ local_part }}',
        dir_mode = tonumber('750', 8),
        file_mode = tonumber('640', 8),
      },
    }
  end

  -- To a webhook, by the constructor below.
  if domain == 'webhook.test' then
    return kumo.make_queue_config {
      protocol = {
        custom_lua = { constructor = 'make.webhook' },
      },
    }
  end

  -- Anything else: SMTP to the MX of the domain.
  return kumo.make_queue_config {}
end)

-- The servers of this example listen on loopback, which is prohibited unless a policy says otherwise.
kumo.on('get_egress_path_config', function(routing_domain, egress_source, site_name)
  return kumo.make_egress_path {
    smtp_port = tonumber(smtp_port),
    prohibited_hosts = {},
    ip_lookup_strategy = 'Ipv4Only',
  }
end)

kumo.on('make.webhook', function(domain, tenant, campaign)
  local connection = {}
  local client = kumo.http.build_client { timeout = '10s' }

  function connection:send(message)
    local response = client
      :post(webhook)
      :header('Content-Type', 'application/json')
      :body(kumo.json_encode {
        id = message:id(),
        from = tostring(message:sender()),
        to = tostring(message:recipient()),
        content = message:get_data(),
      })
      :send()
    local disposition = string.format('%d %s', response:status_code(), response:text())
    if response:status_is_success() then
      return disposition
    end
    if response:status_code() >= 500 then
      kumo.reject(451, disposition) -- the server's trouble: later
    end
    kumo.reject(550, disposition) -- ours: never
  end

  function connection:close()
    client:close()
  end

  return connection
end)
