-- Checks a request against the contract before Envoy transcodes it, since Envoy drops unknown fields of a body
-- silently and says little about what is wrong with the others, and drops the headers that no service reads; takes the
-- resource out of its response, since Envoy has no `response_body`, and says in a header what an error says of
-- retrying. `messages` and `shapes` are generated above this.

local MAX_DEPTH = 32
local MAX_VIOLATIONS = 20 -- the others are only counted
local MAX_NAME = 64 -- bytes
local MAX_PATH = 16384 -- bytes, with the query
-- What services read of the headers, and what is needed to pass a request on. The rest, such as the cookies of other
-- applications on the domain, ends here: gRPC refuses a call with more than 8 KiB of them, and names them.
local FORWARDED = {
  [":authority"] = true, authorization = true, ["content-length"] = true, ["content-type"] = true,
  ["x-request-id"] = true, traceparent = true, ["x-gateway-signature"] = true, ["stripe-signature"] = true,
  ["fdx-signature"] = true, ["x-ups-signature"] = true, ["dhl-signature"] = true,
  ["x-canary"] = true, -- by which a mesh finds the version that is asked for
}
local MAX_FORWARDED = 7000 -- bytes, counted as HTTP/2 does
local HEADER_OVERHEAD = 32
local JSON = "^application/json%s*$"
local byte, char, find, match, sub = string.byte, string.char, string.find, string.match, string.sub
local QUOTE, SLASH, COMMA, COLON, OPEN_LIST, CLOSE_LIST, OPEN, CLOSE = 34, 92, 44, 58, 91, 93, 123, 125

-- The digits of the smallest and the largest whole number of a kind: what has more than 53 bits is no number of Lua.
local LIMITS = {
  int32 = {"2147483648", "2147483647"}, uint32 = {"0", "4294967295"},
  int64 = {"9223372036854775808", "9223372036854775807"}, uint64 = {"0", "18446744073709551615"},
}
local TIME = "^%d%d%d%d%-[01]%d%-[0-3]%dT[0-2]%d:[0-5]%d:[0-6]%d%.?%d*[Z+-][%d:]*$"
local FLOATS = {NaN = true, Infinity = true, ["-Infinity"] = true}

-- The check in progress. There is one at a time: it never waits for anything.
local text, violations
local trail, depth = {}, 0 -- the names, indices and {keys} that lead to the value being read

local Malformed = {}
local function fail(problem) error(setmetatable({problem = problem}, Malformed)) end

-- Returns a text of at most so many bytes and an ellipsis, cut between two characters.
local function cut(plain, size)
  if #plain <= size then return plain end
  local kept = sub(plain, 1, size)
  if find(plain, "^[\128-\191]", size + 1) then kept = string.gsub(kept, "[\192-\255][\128-\191]*$", "") end
  return kept .. "…"
end

local function where()
  local path = ""
  for level = 1, depth do
    local step = trail[level]
    if type(step) == "number" then
      path = path .. "[" .. step .. "]"
    elseif type(step) == "table" then
      path = path .. '["' .. cut(step[1], MAX_NAME) .. '"]'
    else
      path = path .. (path == "" and "" or ".") .. cut(step, MAX_NAME)
    end
  end
  return path
end

local function report(problem)
  if #violations < MAX_VIOLATIONS then
    violations[#violations + 1] = {where(), problem}
  else
    violations.unnamed = (violations.unnamed or 0) + 1
  end
end

local function skip(at) return find(text, "[^ \t\r\n]", at) or #text + 1 end

-- The bytes of UTF-8, by RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
local function is_utf8(bytes)
  local at, size = find(bytes, "[\128-\255]") or #bytes + 1, #bytes
  while at <= size do
    local lead, low, high, more = byte(bytes, at), 128, 191, 0
    if lead < 128 then
      more = 0
    elseif lead >= 194 and lead <= 223 then
      more = 1
    elseif lead >= 224 and lead <= 239 then
      more = 2
      if lead == 224 then low = 160 elseif lead == 237 then high = 159 end
    elseif lead >= 240 and lead <= 244 then
      more = 3
      if lead == 240 then low = 144 elseif lead == 244 then high = 143 end
    else
      return false
    end
    for follower = at + 1, at + more do
      local char = byte(bytes, follower)
      if not char or char < low or char > high then return false end
      low, high = 128, 191
    end
    at = at + more + 1
  end
  return true
end

-- Returns where the escape at a backslash ends.
local function skip_escape(at)
  local hex = match(text, "^u(%x%x%x%x)", at + 1)
  if not hex then
    if not find(text, '^["\\/bfnrt]', at + 1) then fail("a string has a bad escape") end
    return at + 2
  end
  local unit = tonumber(hex, 16)
  if unit == 0 then report("must not contain the character NUL") end
  if unit < 0xD800 or unit > 0xDFFF then return at + 6 end
  -- Half a surrogate pair is no character.
  local low = unit < 0xDC00 and match(text, "^\\u[dD][c-fC-F]%x%x", at + 6)
  if not low then fail("a string has half a surrogate pair") end
  return at + 12
end

-- Returns where the content of the string at a quote ends (before the other quote).
local function scan_string(at)
  at = at + 1
  while true do
    local stop = find(text, '["\\%z\1-\31]', at)
    local char = stop and byte(text, stop)
    if char == QUOTE then return stop - 1 end
    if not char then fail("a string does not end") end
    if char ~= SLASH then fail("a string has a control character") end
    at = skip_escape(stop)
  end
end

local ESCAPED = {b = "\b", f = "\f", n = "\n", r = "\r", t = "\t"}

-- Returns the UTF-8 of a code point.
local function encode(point)
  if point < 0x80 then return char(point) end
  if point < 0x800 then return char(0xC0 + math.floor(point / 0x40), 0x80 + point % 0x40) end
  local last, middle = 0x80 + point % 0x40, 0x80 + math.floor(point / 0x40) % 0x40
  if point < 0x10000 then return char(0xE0 + math.floor(point / 0x1000), middle, last) end
  return char(0xF0 + math.floor(point / 0x40000), 0x80 + math.floor(point / 0x1000) % 0x40, middle, last)
end

-- Returns what the content of a string, which has been scanned, stands for.
local function read_string(from, to)
  local content = sub(text, from, to)
  local slash = find(content, "\\", 1, true)
  if not slash then return content end
  local parts, at = {}, 1
  while slash do
    local kind = sub(content, slash + 1, slash + 1)
    local meant = ESCAPED[kind] or kind
    parts[#parts + 1] = sub(content, at, slash - 1)
    at = slash + 2
    if kind == "u" then
      local point = tonumber(sub(content, at, at + 3), 16)
      at = at + 4
      if point >= 0xD800 and point <= 0xDFFF then
        -- The other half of the pair follows.
        point = 0x10000 + (point - 0xD800) * 0x400 + tonumber(sub(content, at + 2, at + 5), 16) - 0xDC00
        at = at + 6
      end
      meant = encode(point)
    end
    parts[#parts + 1] = meant
    slash = find(content, "\\", at, true)
  end
  return table.concat(parts) .. sub(content, at)
end

-- Returns where the number ends.
local function scan_number(at)
  local _, stop = find(text, "^-?%d+", at)
  if not stop then fail("a value is missing") end
  if find(text, "^-?0%d", at) then fail("a number starts with 0") end
  if byte(text, stop + 1) == 46 then
    _, stop = find(text, "^%.%d+", stop + 1)
    if not stop then fail("a number ends with its point") end
  end
  if find(text, "^[eE]", stop + 1) then
    _, stop = find(text, "^[eE][+-]?%d+", stop + 1)
    if not stop then fail("a number has a bad exponent") end
  end
  return stop
end

local function scan_word(at)
  for _, word in ipairs({"true", "false", "null"}) do
    if sub(text, at, at + #word - 1) == word then return word, at + #word end
  end
  fail("a value is missing")
end

-- Whether a whole number is within the limits of its kind; one with an exponent or a point is compared roughly.
local function is_within(limits, literal, number)
  local digits = match(literal, "^-?0*(%d*)$")
  local limit = limits[find(literal, "^-") and 1 or 2]
  if not digits then return math.abs(number) < tonumber(limit) end
  return #digits < #limit or #digits == #limit and digits <= limit
end

-- Says what is wrong with a scalar, written as `literal` in a "string", a "number" or a "word".
local function complain(kind, form, literal)
  local limits, values = LIMITS[kind], enums[kind]
  if limits then
    local number = (form == "number" or find(literal, "^-?%d+$")) and tonumber(literal)
    if not number or number ~= math.floor(number) then return "must be a whole number" end
    if not is_within(limits, literal, number) then return "is out of range" end
  elseif values then
    local fits = form == "string" and values[literal] or form == "number" and find(literal, "^-?%d+$")
    if not fits then return "must be " .. values[1] end
  elseif kind == "time" then
    if form ~= "string" or not find(literal, TIME) then return "must be a time, such as 2026-01-31T12:00:00Z" end
  elseif kind == "number" then
    local number = form ~= "word" and find(literal, "^-?%d") and find(literal, "^[%d.eE+-]+$") and tonumber(literal)
    if not number and not (form == "string" and FLOATS[literal]) then return "must be a number" end
    if number and math.abs(number) == math.huge then return "is out of range" end
  elseif kind == "bool" then
    if literal ~= "true" and literal ~= "false" or form ~= "word" then return "must be true or false" end
  elseif kind ~= "any" and form ~= "string" then
    return "must be a string"
  end
end

local read_value

local function enter(step)
  depth = depth + 1
  if depth > MAX_DEPTH then fail("it is nested more than " .. MAX_DEPTH .. " deep") end
  trail[depth] = step
end

-- Reads what follows `name:` in an object; `fields` are those of a message, or `map` is the kind of a map's values.
local function read_member(at, name, fields, map, seen)
  if map then
    enter({name})
    if seen[name] then report("is given twice") end
    seen[name] = true
    at = read_value(at, map, "element")
  else
    local field = fields and fields[name]
    enter(field and field.name or name)
    if fields and not field then report("unknown field") end
    if field then
      local given = not find(text, "^null", at)
      local group = field.oneof or field.name
      if seen[field.name] then
        report("is given twice")
      elseif given and seen[group] then
        report("can't be given together with " .. seen[group])
      end
      seen[field.name] = field.name
      if given then seen[group] = field.name end
    end
    at = read_value(at, field and field.kind or "any", field and field.how or "one")
  end
  depth = depth - 1
  return at
end

local function read_object(at, fields, map)
  local seen = {}
  at = skip(at + 1)
  if byte(text, at) == CLOSE then return at + 1 end
  while true do
    if byte(text, at) ~= QUOTE then fail("a name is missing") end
    local stop = scan_string(at)
    local name = read_string(at + 1, stop)
    at = skip(stop + 2)
    if byte(text, at) ~= COLON then fail("a colon is missing") end
    at = skip(read_member(skip(at + 1), name, fields, map, seen))
    local char = byte(text, at)
    if char == CLOSE then return at + 1 end
    if char ~= COMMA then fail("a comma or a closing brace is missing") end
    at = skip(at + 1)
  end
end

local function read_list(at, kind)
  at = skip(at + 1)
  if byte(text, at) == CLOSE_LIST then return at + 1 end
  enter(0)
  while true do
    at = skip(read_value(at, kind, "element"))
    local char = byte(text, at)
    if char == CLOSE_LIST then break end
    if char ~= COMMA then fail("a comma or a closing bracket is missing") end
    trail[depth] = trail[depth] + 1
    at = skip(at + 1)
  end
  depth = depth - 1
  return at + 1
end

-- Reads a value that shall be of a kind; `how` says if it is "one", a "list" or a "map" of them, or an "element" of
-- either. Returns where it ends.
function read_value(at, kind, how)
  local char = byte(text, at)
  local fields = messages[kind]
  local loose = kind == "any" and how ~= "list" and how ~= "map"
  if char == OPEN then
    if how == "map" then return read_object(at, nil, kind) end
    if fields and how ~= "list" then return read_object(at, fields) end
    if not loose then report(how == "list" and "must be a list" or complain(kind, "word", "") or "must be a string") end
    return read_object(at)
  end
  if char == OPEN_LIST then
    if how == "list" then return read_list(at, kind) end
    if not loose then report((fields or how == "map") and "must be an object" or complain(kind, "word", "") or "must be a string") end
    return read_list(at, "any")
  end
  local form, literal, stop = "string", "", nil
  if char == QUOTE then
    stop = scan_string(at)
    if kind ~= "string" then
      -- No other scalar is written this long, escaped or not; one that is cut is none.
      literal = stop < at + 400 and read_string(at + 1, stop) or sub(text, at + 1, at + 65)
      if #literal > 64 then literal = sub(literal, 1, 64) .. "..." end
    end
    stop = stop + 2
  elseif char and find(text, "^[tfn]", at) then
    form = "word"
    literal, stop = scan_word(at)
    if literal == "null" and how ~= "element" then return stop end
  else
    form, stop = "number", scan_number(at)
    literal = sub(text, at, stop)
    stop = stop + 1
  end
  if how == "list" then
    report("must be a list")
  elseif fields or how == "map" then
    report("must be an object")
  elseif not loose then
    local problem = complain(kind, form, literal)
    if problem then report(problem) end
  end
  return stop
end

local function check_body(shape)
  if not is_utf8(text) then fail("it is not UTF-8") end
  local at = skip(1)
  if at > #text then return end
  if byte(text, at) ~= OPEN then fail("it is not an object") end
  at = skip(read_object(at, shape.body))
  if at <= #text then fail("something follows the object") end
end

local function unescape(part)
  local plain = string.gsub(part, "+", " ")
  if find(string.gsub(plain, "%%%x%x", ""), "%%") then return nil end
  return (string.gsub(plain, "%%(%x%x)", function(hex) return char(tonumber(hex, 16)) end))
end

local function check_query(query, shape)
  local seen = {}
  for pair in string.gmatch(query, "[^&]+") do
    local name, value = match(pair, "^([^=]*)=?(.*)$")
    name, value = unescape(name), unescape(value)
    local field = name and shape.query[name]
    trail[1], depth = field and field.name or name or pair, 1
    if not (name and value and is_utf8(name) and is_utf8(value)) or find(value, "%z") then
      report("is not text in percent-encoded UTF-8")
    elseif not field then
      report("unknown query parameter")
    else
      if seen[field.name] and field.how ~= "list" then report("is given twice") end
      seen[field.name] = true
      local is_word = field.kind == "bool"
      local problem = complain(field.kind, is_word and "word" or "string", value)
      if problem then report(problem) end
    end
  end
end

-- Runs a check and returns the reason and the message of what makes it fail, if anything does.
local function try(check, ...)
  local fine, problem = pcall(check, ...)
  if not fine and getmetatable(problem) == Malformed then
    violations = {}
    return "MALFORMED_BODY", "the body is not well-formed JSON: " .. problem.problem
  end
  if not fine then error(problem) end
  if #violations == 0 then return end
  local message, more = violations[1][1] .. ": " .. violations[1][2], violations.unnamed or 0
  local others = #violations - 1 + more
  if others > 0 then message = message .. "; and " .. others .. " more" end
  if more > 0 then violations[#violations + 1] = {"", "and " .. more .. " more"} end
  return "INVALID_ARGUMENT", message
end

local ESCAPES = {['"'] = '\\"', ["\\"] = "\\\\"}
local function quote(plain)
  plain = string.gsub(cut(plain, 400), '["\\]', ESCAPES)
  -- A name that is no UTF-8 must not make the answer no JSON.
  if not is_utf8(plain) then plain = string.gsub(plain, "[\128-\255]", "?") end
  return '"' .. string.gsub(plain, "[%z\1-\31\127]", "?") .. '"'
end

local function refuse(handle, http, reason, message)
  local details = '{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"' .. reason .. '","domain":"stoa"}'
  if #violations > 0 then
    local named = {}
    for index, violation in ipairs(violations) do
      named[index] = '{"field":' .. quote(violation[1]) .. ',"description":' .. quote(violation[2]) .. "}"
    end
    details = details .. ',{"@type":"type.googleapis.com/google.rpc.BadRequest","field_violations":['
      .. table.concat(named, ",") .. "]}"
  end
  handle:respond(
    {[":status"] = http, ["content-type"] = "application/json"},
    '{"code":3,"message":' .. quote(message) .. ',"details":[' .. details .. "]}"
  )
end

local function is_json(headers)
  local media = headers:get("content-type")
  local coding = headers:get("content-encoding")
  return (not media or match(string.lower(match(media, "^[^;]*")), JSON)) and (not coding or coding == "identity")
end

-- Drops the headers that no service reads; returns whether the rest may be passed on.
local function drop_unread(headers)
  local unread, size = {}, 0
  for name, value in pairs(headers) do
    if FORWARDED[name] then
      size = size + #name + #value + HEADER_OVERHEAD
    elseif byte(name) ~= COLON then
      unread[#unread + 1] = name
    end
  end
  for _, name in ipairs(unread) do headers:remove(name) end
  return size <= MAX_FORWARDED
end

function envoy_on_request(handle)
  local route = handle:metadata()
  local shape = shapes[route:get("rpc")]
  if not shape then return end
  local headers = handle:headers()
  local json = shape.body and is_json(headers)
  violations = {}
  if not drop_unread(headers) then
    return refuse(handle, "431", "HEADERS_TOO_LARGE", "the headers of the request are too large")
  end
  local target = headers:get(":path")
  if #target > MAX_PATH then
    return refuse(handle, "414", "PATH_TOO_LONG", "the path and the query exceed " .. MAX_PATH .. " bytes")
  end
  -- The contract knows GET; what is not wanted of its answer is left out of the response.
  if route:get("head") then headers:replace(":method", "GET") end
  local path, query = match(target, "^([^?]*)%??(.*)$")
  if find(path, "%", 1, true) and not is_utf8(unescape(path) or "\255") then
    return refuse(handle, "400", "MALFORMED_REQUEST", "the path is not UTF-8, percent-encoded")
  end
  if query ~= "" then
    text, depth = "", 0
    local reason, message = try(check_query, query, shape)
    if reason then return refuse(handle, "400", reason, message) end
  end
  if not shape.body then return end
  local buffer = handle:body() -- waits for it; other requests are checked meanwhile
  violations = {}
  if not buffer or buffer:length() == 0 then return end
  if not json then
    return refuse(handle, "415", "UNSUPPORTED_MEDIA_TYPE", "the body must be application/json, not encoded")
  end
  text, depth = buffer:getBytes(0, buffer:length()), 0
  local reason, message = try(check_body, shape)
  text = ""
  if reason then refuse(handle, "400", reason, message) end
end

-- Returns the resource that is the answer's only field, or the answer as it is.
local function unwrap(answer, wrapper)
  local prefix = '{"' .. wrapper .. '":'
  return sub(answer, 1, #prefix) == prefix and sub(answer, #prefix + 1, -2) or answer
end

-- Returns the whole seconds after which an error says to try again, if it does.
local function retry_seconds(answer)
  local _, info = find(answer, '"type.googleapis.com/google.rpc.RetryInfo"', 1, true)
  local seconds = info and match(answer, '"retry_?[dD]elay": ?"([%d.]+)s"', info)
  return seconds and string.format("%d", math.max(1, math.ceil(tonumber(seconds))))
end

function envoy_on_response(handle)
  local route, status = handle:metadata(), handle:headers():get(":status")
  local wrapper, head, is_error = route:get("unwrap"), route:get("head"), status >= "400"
  if not (wrapper or head or is_error) then return end
  local body = handle:body() -- waits for it; what was got from the handle before is gone
  if not body then return end
  local headers, answer = handle:headers(), body:getBytes(0, body:length())
  if is_error then
    local seconds = not headers:get("retry-after") and retry_seconds(answer)
    if seconds then headers:replace("retry-after", seconds) end
  elseif wrapper then
    answer = unwrap(answer, wrapper)
    if not head then headers:replace("content-length", body:setBytes(answer)) end
  end
  if head then
    body:setBytes("")
    headers:replace("content-length", #answer)
  end
end
