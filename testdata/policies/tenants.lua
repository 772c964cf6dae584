-- Each tenant has a service of its own, and each message says in its metadata whose it is.
local kumo = require 'kumo'

local CREDENTIALS = {
  acme = { user = 'acme', password = 'a-secret', path = '/acme' },
  umbrella = { user = 'umbrella', password = 'u-secret', path = '/umbrella' },
}

kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  if not CREDENTIALS[tenant or ''] then
    return kumo.make_queue_config { protocol = { maildir_path = '/var/mail/unknown-tenants' } }
  end
  return kumo.make_queue_config {
    protocol = { custom_lua = { constructor = 'make.tenant' } },
  }
end)

kumo.on('make.tenant', function(domain, tenant, campaign)
  local who = CREDENTIALS[tenant]
  local client = kumo.http.build_client {}
  return {
    send = function(self, message)
      if message:get_meta 'tenant' ~= tenant then
        kumo.reject(500, 'a message of ' .. tostring(message:get_meta 'tenant') .. ' on a connection of ' .. tenant)
      end
      local response = client
        :put(message:get_meta 'url' .. who.path)
        :basic_auth(who.user, who.password)
        :body(message:get_data())
        :send()
      if response:status_code() == 401 then
        kumo.reject(450, 'the credentials of ' .. tenant .. ' are refused')
      end
      return response:text()
    end,
  }
end)
