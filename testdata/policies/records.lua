-- Log records leave as lines of JSON, one connection for each tenant. Written for KumoMTA; it runs
-- here as it stands.
local kumo = require 'kumo'

local KEEP = { 'type', 'recipient', 'code', 'site', 'queue' }
local QUIET = { Reception = true, Delayed = true }

kumo.on('init', function()
  kumo.configure_log_hook { name = 'records', headers = { 'Subject' } }
  kumo.set_max_lua_context_use_count(4096)
end)

kumo.on('should_enqueue_log_record', function(message, hook)
  local record = message:get_meta 'log_record'
  return hook == 'records' and record ~= nil and not QUIET[record.type]
end)

kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  if domain ~= 'example.com' then
    return
  end
  return kumo.make_queue_config {
    protocol = { custom_lua = { constructor = 'make.it' } },
    retry_interval = '1m',
    max_age = '1 day',
  }
end)

local function pick(record, names)
  local kept = {}
  for _, name in ipairs(names) do
    kept[name] = record[name]
  end
  return kept
end

kumo.on('make.it', function(domain, tenant, campaign)
  local connection = { sent = 0, label = string.format('%s/%s', domain, tenant or 'nobody') }

  function connection:send(message)
    local record = message:get_meta 'log_record'
    if not record then
      kumo.reject(500, 'not a log record: ' .. message:id())
    end
    local line = pick(record, KEEP)
    line.label = self.label
    line.tries = message:num_attempts()
    line.sender = message:sender().email
    line.to = {}
    for i, recipient in ipairs(message:recipient_list()) do
      line.to[i] = tostring(recipient):lower()
    end
    local text = kumo.json_encode(line)
    if #text > 64 * 1024 then
      kumo.reject(552, 'the record is too long')
    end
    self.sent = self.sent + 1
    return string.format('%d: %d bytes', self.sent, #text)
  end

  return connection
end)
