-- Checks a request against the contract before Envoy transcodes it, since Envoy drops unknown fields of a body
-- silently and says little about what is wrong with the others; and takes the resource out of its response, since
-- Envoy has no `response_body`. `messages` and `shapes` are generated above this.

local MAX_DEPTH = 32
local MAX_VIOLATIONS = 20
local find, byte, sub = string.find, string.byte, string.sub

local LIMITS = {
  int32 = {-2147483648, 2147483647}, uint32 = {0, 4294967295},
  int64 = {-9223372036854775808, 9223372036854775807}, uint64 = {0, 18446744073709551615},
}

local Malformed = {}
local function fail(reason) error(setmetatable({reason = reason}, Malformed)) end

local function skip(text, at) return find(text, "[^ \t\r\n]", at) or #text + 1 end

-- Returns the string's content as it is written (names in contracts have no escapes) and where to go on.
local function read_string(text, at)
  local from = at + 1
  at = from
  while true do
    local stop = find(text, '["\\%c]', at)
    if not stop then fail("a string does not end") end
    local char = byte(text, stop)
    if char == 34 then return sub(text, from, stop - 1), stop + 1 end
    if char == 92 then
      local escape = sub(text, stop + 1, stop + 1)
      if escape == "u" then
        if not find(text, "^%x%x%x%x", stop + 2) then fail("a string has a bad escape") end
        at = stop + 6
      elseif find('"\\/bfnrt', escape, 1, true) and escape ~= "" then
        at = stop + 2
      else
        fail("a string has a bad escape")
      end
    elseif char == 127 then
      at = stop + 1
    else
      fail("a string has a control character")
    end
  end
end

local function read_number(text, at)
  local _, stop = find(text, "^-?%d+%.?%d*[eE]?[+-]?%d*", at)
  local number = stop and sub(text, at, stop)
  local valid = number and tonumber(number)
    and not find(number, "^-?0%d") and not find(number, "%.$") and not find(number, "%.[eE]")
  if not valid then fail("a value is not JSON") end
  return tonumber(number), stop + 1
end

local function type_of(char)
  if char == 34 then return "string" end
  if char == 123 then return "object" end
  if char == 91 then return "list" end
  if char == 116 or char == 102 then return "bool" end
  if char == 110 then return "null" end
  return "number"
end

local read_value

local function report(violations, path, text)
  if #violations < MAX_VIOLATIONS then violations[#violations + 1] = {path, text} end
end

local function read_object(text, at, depth, violations, path, fields, of_kind)
  if depth > MAX_DEPTH then fail("it is nested too deep") end
  local seen = {}
  at = skip(text, at + 1)
  if byte(text, at) == 125 then return at + 1 end
  while true do
    if byte(text, at) ~= 34 then fail("a name is missing") end
    local name
    name, at = read_string(text, at)
    at = skip(text, at)
    if byte(text, at) ~= 58 then fail("a colon is missing") end
    at = skip(text, at + 1)
    local field = fields and fields[name]
    local key = field and field.name or name
    local inner = path .. key
    if seen[key] then report(violations, inner, "is given twice") end
    seen[key] = true
    if of_kind then
      at = read_value(text, at, depth + 1, violations, path .. '["' .. name .. '"]', of_kind, "one")
    elseif field then
      at = read_value(text, at, depth + 1, violations, inner, field.kind, field.how)
    else
      if fields then report(violations, inner, "unknown field") end
      at = read_value(text, at, depth + 1, violations, inner, "any", "one")
    end
    at = skip(text, at)
    local char = byte(text, at)
    if char == 125 then return at + 1 end
    if char ~= 44 then fail("a comma or a brace is missing") end
    at = skip(text, at + 1)
  end
end

local function read_list(text, at, depth, violations, path, kind)
  if depth > MAX_DEPTH then fail("it is nested too deep") end
  at = skip(text, at + 1)
  if byte(text, at) == 93 then return at + 1 end
  local index = 0
  while true do
    at = read_value(text, at, depth + 1, violations, path .. "[" .. index .. "]", kind, "one")
    index = index + 1
    at = skip(text, at)
    local char = byte(text, at)
    if char == 93 then return at + 1 end
    if char ~= 44 then fail("a comma or a bracket is missing") end
    at = skip(text, at + 1)
  end
end

-- What is wrong with a scalar; nil if nothing is.
local function complaint(kind, found, value)
  local limits = LIMITS[kind]
  if limits then
    local number = value
    if found == "string" and find(value, "^-?%d+$") then number = tonumber(value) end
    if type(number) ~= "number" or number ~= math.floor(number) then return "must be a whole number" end
    if number < limits[1] or number > limits[2] then return "is out of range" end
  elseif kind == "number" then
    if found ~= "number" and not (found == "string" and tonumber(value)) then return "must be a number" end
  elseif kind == "bool" then
    if found ~= "bool" then return "must be true or false" end
  elseif kind == "enum" then
    if found ~= "string" and found ~= "number" then return "must be the name of a value" end
  elseif found ~= "string" then
    return "must be a string"
  end
end

function read_value(text, at, depth, violations, path, kind, how)
  local found = type_of(byte(text, at))
  local value
  if found == "object" then
    if how == "map" then return read_object(text, at, depth, violations, path, nil, kind) end
    local fields = how == "one" and messages[kind]
    if not fields and (kind ~= "any" or how ~= "one") then
      report(violations, path, how == "list" and "must be a list" or complaint(kind, found) or "must not be an object")
    end
    return read_object(text, at, depth, violations, path .. ".", fields or nil, nil)
  elseif found == "list" then
    if how ~= "list" and kind ~= "any" then report(violations, path, "must not be a list") end
    return read_list(text, at, depth, violations, path, how == "list" and kind or "any")
  elseif found == "string" then
    value, at = read_string(text, at)
  elseif found == "number" then
    value, at = read_number(text, at)
  else
    local word = find(text, "^true", at) and "true" or find(text, "^false", at) and "false"
      or find(text, "^null", at) and "null" or fail("a value is not JSON")
    at = at + #word
  end
  if found ~= "null" and kind ~= "any" then
    if how ~= "one" then
      report(violations, path, how == "list" and "must be a list" or "must be an object")
    elseif messages[kind] then
      report(violations, path, "must be an object")
    else
      local text_of = complaint(kind, found, value)
      if text_of then report(violations, path, text_of) end
    end
  end
  return at
end

local function check_body(text, shape, violations)
  local at = skip(text, 1)
  if at > #text then return end
  if byte(text, at) ~= 123 then fail("the body must be a JSON object") end
  at = skip(text, read_object(text, at, 1, violations, shape.prefix, shape.body, nil))
  if at <= #text then fail("something follows the object") end
end

local function unescape(text)
  text = string.gsub(text, "+", " ")
  return (string.gsub(text, "%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function check_query(query, shape, violations)
  for pair in string.gmatch(query, "[^&]+") do
    local name, value = string.match(pair, "^([^=]*)=?(.*)$")
    name = unescape(name)
    local kind = shape.query[name]
    if not kind then
      report(violations, name, "unknown parameter")
    elseif kind == "bool" then
      if value ~= "true" and value ~= "false" then report(violations, name, "must be true or false") end
    elseif kind ~= "string" and value ~= "" then
      local text_of = complaint(kind, "string", unescape(value))
      if text_of then report(violations, name, text_of) end
    end
  end
end

local ESCAPES = {['"'] = '\\"', ["\\"] = "\\\\"}
local function quote(text)
  text = string.gsub(string.sub(text, 1, 200), '["\\]', ESCAPES)
  -- Not what a client sent as it is: bytes that are no UTF-8 would make the answer no JSON.
  return '"' .. string.gsub(text, "[%c\127-\255]", "?") .. '"'
end

local function refuse(handle, reason, message, violations)
  local details = '{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"' .. reason .. '","domain":"stoa"}'
  if #violations > 0 then
    local named = {}
    for index, violation in ipairs(violations) do
      named[index] = '{"field":' .. quote(violation[1]) .. ',"description":' .. quote(violation[2]) .. "}"
    end
    details = details .. ',{"@type":"type.googleapis.com/google.rpc.BadRequest","field_violations":['
      .. table.concat(named, ",") .. "]}"
    message = violations[1][1] .. ": " .. violations[1][2]
  end
  handle:respond(
    {[":status"] = "400", ["content-type"] = "application/json"},
    '{"code":3,"message":' .. quote(message) .. ',"details":[' .. details .. "]}"
  )
end

function envoy_on_request(handle)
  local shape = shapes[handle:metadata():get("rpc")]
  if not shape then return end
  local violations = {}
  local query = string.match(handle:headers():get(":path"), "%?(.*)$")
  if query then check_query(query, shape, violations) end
  if shape.body then
    local buffer = handle:body()
    local text = buffer and buffer:length() > 0 and buffer:getBytes(0, buffer:length()) or ""
    local fine, problem = pcall(check_body, text, shape, violations)
    if not fine then
      if getmetatable(problem) ~= Malformed then error(problem) end
      return refuse(handle, "MALFORMED_BODY", "the body is not well-formed JSON: " .. problem.reason, {})
    end
  end
  if #violations > 0 then refuse(handle, "INVALID_ARGUMENT", "", violations) end
end

function envoy_on_response(handle)
  local wrapper = handle:metadata():get("unwrap")
  if not wrapper or handle:headers():get(":status") ~= "200" then return end
  local body = handle:body()
  if not body then return end
  local text = body:getBytes(0, body:length())
  local prefix = '{"' .. wrapper .. '":'
  if sub(text, 1, #prefix) ~= prefix then return end
  handle:headers():replace("content-length", body:setBytes(sub(text, #prefix + 1, -2)))
end
