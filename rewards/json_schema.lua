-- 1 if the answer holds JSON of the form that row.schema (or the option schema) asks for, 0 if not. Of JSON Schema:
-- type, required, properties, additionalProperties = false, items, minItems, maxItems, enum, minimum, maximum,
-- minLength, maxLength, pattern.
local function type_of(v)
  if v == json.null then return "null" end
  local t = math.type(v)
  if t then return t == "integer" and "integer" or (v == math.floor(v) and "integer" or "number") end
  if type(v) ~= "table" then return type(v) end
  return (#v > 0 or next(v) == nil) and "array" or "object"
end

local function is_type(v, want)
  local t = type_of(v)
  if type(want) == "table" then
    for _, w in ipairs(want) do if is_type(v, w) then return true end end
    return false
  end
  return t == want or (t == "integer" and want == "number") or (want == "object" and type(v) == "table" and next(v) == nil)
end

local function outside(n, low, high) return (low and n < low) or (high and n > high) end

local fits
local function fits_table(v, s)
  if outside(#v, s.minItems, s.maxItems) then return false end
  if s.items then for _, item in ipairs(v) do if not fits(item, s.items) then return false end end end
  for _, name in ipairs(s.required or {}) do if v[name] == nil then return false end end
  if s.properties then
    for name, inner in pairs(s.properties) do if v[name] ~= nil and not fits(v[name], inner) then return false end end
    if s.additionalProperties == false then
      for name in pairs(v) do if s.properties[name] == nil then return false end end
    end
  end
  return true
end

function fits(v, s)
  if s.type and not is_type(v, s.type) then return false end
  if s.enum then
    local found = false
    for _, e in ipairs(s.enum) do found = found or e == v end
    if not found then return false end
  end
  if math.type(v) and outside(v, s.minimum, s.maximum) then return false end
  if type(v) == "string" then
    if outside(text.length(v), s.minLength, s.maxLength) then return false end
    if s.pattern and not re.test(v, s.pattern) then return false end
  end
  return type(v) ~= "table" or fits_table(v, s)
end

return function(sample)
  local schema = sample.row and sample.row.schema or options.schema
  if not schema then return nil, "neither the row nor the options have a schema" end
  local found = extract.json(sample.answer)
  local value = json.decode(found or sample.answer)
  return value ~= nil and fits(value, schema) and 1 or 0
end
