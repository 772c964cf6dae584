-- A message bus whose client the host lends: require 'host.queue' is its module in Go.
local kumo = require 'kumo'
local queue = require 'host.queue'

kumo.on('make.queue', function(domain, tenant, campaign)
  local topic = queue.topic(domain)
  local connection = {}

  function connection:send_batch(messages)
    local results = {}
    for i, message in ipairs(messages) do
      local ok, offset = pcall(topic.publish, topic, message:get_data(), { id = message:id() })
      results[i] = ok and 'offset ' .. offset or { code = 451, message = tostring(offset) }
    end
    return results
  end

  function connection:close()
    topic:close()
  end

  return connection
end)
