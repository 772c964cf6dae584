-- Every construct of the manual's page on the protocol option, in words of our own. The tests ask
-- this policy for one queue after the other.
kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  if domain == 'relay.test' then
    -- By name (A and AAAA), with and without a port; by address in brackets; by name and address.
    return kumo.make_queue_config {
      protocol = {
        smtp = {
          mx_list = {
            'inner.relay.test',
            'inner.relay.test:2025',
            '[192.0.2.10]',
            '[IPv6:2001:db8::10]',
            { name = 'mx.relay.test', addr = '192.0.2.11' },
            { name = 'mx.relay.test', addr = '192.0.2.12:2025' },
          },
        },
      },
    }
  elseif domain == 'plain-maildir.test' then
    return kumo.make_queue_config { protocol = { maildir_path = '/var/mail/all' } }
  elseif domain == 'modes.test' then
    return kumo.make_queue_config {
      protocol = {
        maildir_path = '/var/mail/{{ domain_part }}/{{ local_part }}',
        dir_mode = tonumber('2770', 8),
        file_mode = tonumber('660', 8),
      },
    }
  elseif domain == 'names.test' then
    return kumo.make_queue_config {
      protocol = {
        maildir_path = '/var/mail/{{ meta.folder or "inbox" }}/{{ tenant or "no-tenant" }}/{{ campaign or "no-campaign" }}'
          .. '/{{ domain }}/{{ routing_domain or "no-routing" }}/{{ local_part }}/{{ domain_part }}/{{ email }}'
          .. '/{{ sender_local_part }}/{{ sender_domain_part }}/{{ sender_email }}',
      },
    }
  elseif domain == 'hook.test' then
    return kumo.make_queue_config { protocol = { custom_lua = { constructor = 'make.hook' } } }
  elseif domain == 'passed-on.test' then
    return -- to the next handler, if there is one
  end
  return kumo.make_queue_config {}
end)

kumo.on('make.hook', function(domain, tenant, campaign)
  local connection = {}
  function connection:send(message)
    if message:get_meta 'verdict' then
      kumo.reject(message:get_meta 'verdict', 'as the metadata wishes')
    end
    return 'OK ' .. #message:get_data()
  end
  return connection
end)
