-- Log records go to a web service. A busy service is asked again later, a request that it does not
-- like is given up.
local kumo = require 'kumo'
local http = require 'kumo.http'

kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '0:25' }
  kumo.define_spool { name = 'data', path = '/var/spool/x' }
  kumo.set_max_spare_lua_contexts(16)
  kumo.dns.configure_resolver 'x'
  kumo.aaa.configure_acl('x', {})
  kumo.start_esmtp_listener { listen = '0:26' }
end)

kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  if domain == 'hook' then
    return kumo.make_queue_config { protocol = { custom_lua = { constructor = 'make.hook' } } }
  end
end)

kumo.on('get_queue_config', function(domain)
  if domain == 'nil' then
    return nil
  end
  return kumo.make_queue_config { max_age = '1 day', seen_by = 'second' }
end)

kumo.on('make.hook', function(domain, tenant, campaign)
  local client = http.build_client { timeout = '5s', user_agent = 'policy/1' }
  local connection = { sent = 0 }

  function connection:send(message)
    local record = {
      id = message:id(),
      from = message:sender().email,
      to = {},
      tries = message:num_attempts(),
      tenant = tenant,
    }
    for _, rcpt in ipairs(message:recipient_list()) do
      table.insert(record.to, tostring(rcpt))
    end
    local response = client
      :post(message:get_meta 'url')
      :header('Content-Type', 'application/json')
      :basic_auth('user', 'secret')
      :body(kumo.json_encode(record))
      :send()
    local text = string.format('%d %s: %s', response:status_code(), response:status_reason() or '-', response:text())
    if response:status_is_success() then
      self.sent = self.sent + 1
      return text
    elseif response:status_code() == 429 or response:status_is_server_error() then
      kumo.reject(400, text)
    end
    kumo.reject(500, text)
  end

  function connection:close()
    client:close()
  end

  return connection
end)
