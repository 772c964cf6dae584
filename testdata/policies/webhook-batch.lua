-- A webhook that takes many messages in one request, and answers with a status for each.
local kumo = require 'kumo'

kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  return kumo.make_queue_config {
    protocol = {
      custom_lua = {
        constructor = 'make.batch',
        batch_size = 100,
        min_batch_size = 10,
        max_batch_latency = '15s',
      },
    },
  }
end)

kumo.on('get_egress_path_config', function(routing_domain, egress_source, site_name)
  return kumo.make_egress_path { connection_limit = 1, idle_timeout = '1 minute' }
end)

kumo.on('make.batch', function(domain, tenant, campaign)
  local client = kumo.http.build_client {}
  local connection = {}

  function connection:send_batch(messages)
    local list = {}
    for i, message in ipairs(messages) do
      list[i] = { id = message:id(), data = message:get_data() }
    end
    local response = client
      :post(messages[1]:get_meta 'url')
      :header('Content-Type', 'application/json')
      :body(kumo.json_encode(list))
      :send()
    if not response:status_is_success() then
      kumo.reject(response:status_code() == 429 and 451 or 550, 'all of them: ' .. response:status_code())
    end
    local results = {}
    for i, status in ipairs(kumo.json_parse(response:text())) do
      results[i] = status == 'taken' and 'taken' or { code = 451, message = status }
    end
    return results
  end

  return connection
end)
