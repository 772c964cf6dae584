-- A policy that sends each of its domains another way. The test puts peers.lua beside it, which says
-- where the servers are.
local kumo = require 'kumo'
local peers = require 'peers'

kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '127.0.0.1:2525' }
  kumo.define_spool { name = 'data', path = '/var/spool/kumomta/data' }
end)

local routes = {
  ['example.test'] = { smtp = { mx_list = { { name = peers.postfix_name, addr = peers.postfix } } } },
  ['dovecot.test'] = { smtp = { mx_list = { { name = 'lmtp.dovecot.test', addr = peers.lmtp } } } },
  ['maildir.test'] = {
    maildir_path = peers.maildirs .. '/{{ domain_part }}/{{ local_part }}',
    dir_mode = tonumber('2775', 8),
    file_mode = tonumber('664', 8),
  },
  ['lua.test'] = { custom_lua = { constructor = 'make.counter' } },
  ['refused.test'] = { custom_lua = { constructor = 'make.counter' } },
}

kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  local config = { protocol = routes[domain], retry_interval = '5m' }
  if domain == 'example.test' then
    config.egress_pool = 'relays'
  end
  return kumo.make_queue_config(config)
end)

kumo.on('get_egress_pool', function(name)
  return kumo.make_egress_pool { name = name, entries = { { name = 'relay-1', weight = 10 } } }
end)

kumo.on('get_egress_source', function(name)
  return kumo.make_egress_source { name = name, source_address = '127.0.0.1', ehlo_domain = name .. '.sender.test' }
end)

kumo.on('get_egress_path_config', function(routing_domain, egress_source, site_name)
  return kumo.make_egress_path {
    enable_tls = routing_domain == 'example.test' and 'Required' or 'Opportunistic',
    use_lmtp = routing_domain == 'dovecot.test',
    prohibited_hosts = {},
  }
end)

kumo.on('make.counter', function(domain, tenant, campaign)
  local connection = {}
  function connection:send(message)
    if domain == 'refused.test' then
      kumo.reject(550, message:recipient().user .. ' is not wanted')
    end
    return string.format('%d bytes for %s', #message:get_data(), message:recipient())
  end
  return connection
end)
