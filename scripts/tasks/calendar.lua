-- Dates. Level 1: the weekday some days from a given one; 2: days from one date to another in a year; 3: the weekday of a date,
-- from that of another date in the year; 4: the day of the month of its n-th weekday, or -1 if there is none.
local weekdays = { "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday" }
local months = { "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December" }
local ordinals = { "first", "second", "third", "fourth", "fifth" }

local function is_leap(y) return y % 4 == 0 and (y % 100 ~= 0 or y % 400 == 0) end
local function month_days(y, m)
  if m == 2 then return is_leap(y) and 29 or 28 end
  return (m == 4 or m == 6 or m == 9 or m == 11) and 30 or 31
end
local function day_of_year(y, m, d)
  for i = 1, m - 1 do d = d + month_days(y, i) end
  return d
end
-- 0 for a Monday.
local function weekday(y, m, d)
  local before = y - 1
  return (before * 365 + before // 4 - before // 100 + before // 400 + day_of_year(y, m, d) - 1) % 7
end
local function date(y)
  local m = math.random(12)
  return m, math.random(month_days(y, m))
end
local function written(y, m, d) return months[m] .. " " .. d .. ", " .. y end

local function weekday_offset()
  local start, days, back = math.random(0, 6), math.random(2, 100), math.random(2) == 2
  local ends = (start + (back and -days or days)) % 7
  return "It is " .. weekdays[start + 1] .. ". What weekday " .. (back and "was it " or "will it be ") .. days .. " days " .. (back and "ago?" or "from now?"),
    weekdays[ends + 1], weekdays[(ends + 1) % 7 + 1], days .. " days are " .. days // 7 .. " weeks and " .. days % 7 .. " days."
end
local function days_between()
  local y = math.random(1990, 2035)
  local m1, d1 = date(y)
  local m2, d2 = date(y)
  local a, b = day_of_year(y, m1, d1), day_of_year(y, m2, d2)
  if a > b then m1, d1, m2, d2, a, b = m2, d2, m1, d1, b, a end
  return "How many days are there from " .. written(y, m1, d1) .. " to " .. written(y, m2, d2) .. ", not counting the first of them?",
    b - a, b - a + 1, "Day " .. a .. " and day " .. b .. " of the year: " .. b .. " - " .. a .. " = " .. b - a .. "."
end
local function weekday_from_date()
  local y = math.random(1990, 2035)
  local m1, d1 = date(y)
  local m2, d2 = date(y)
  local a, b, day = day_of_year(y, m1, d1), day_of_year(y, m2, d2), weekday(y, m2, d2)
  return written(y, m1, d1) .. " is a " .. weekdays[weekday(y, m1, d1) + 1] .. ". What weekday is " .. written(y, m2, d2) .. "?",
    weekdays[day + 1], weekdays[(day + 3) % 7 + 1],
    "They are " .. math.abs(b - a) .. " days apart, " .. math.abs(b - a) // 7 .. " weeks and " .. math.abs(b - a) % 7 .. " days."
end
local function recurring()
  local y, m, n, day = math.random(1990, 2035), math.random(12), math.random(5), math.random(0, 6)
  local first = 1 + (day - weekday(y, m, 1)) % 7
  local d = first + 7 * (n - 1)
  local truth = d <= month_days(y, m) and d or -1
  return "On what day of the month is the " .. ordinals[n] .. " " .. weekdays[day + 1] .. " of " .. months[m] .. " " .. y .. "? Answer -1 if there is none.",
    truth, truth + 7, months[m] .. " 1 is a " .. weekdays[weekday(y, m, 1) + 1] .. ", the first " .. weekdays[day + 1] .. " is the " .. first .. ", then " .. n - 1 .. " weeks."
end

local kinds = { weekday_offset, days_between, weekday_from_date, recurring }
return {
  about = "weekdays, days between dates, n-th weekdays",
  levels = #kinds,
  generate = function(level)
    local prompt, truth, wrong, demonstration = kinds[level]()
    return { prompt = prompt, truth = truth, wrong = wrong, demonstration = demonstration }
  end,
  score = function(sample)
    local name = sample.answer:match("^%s*(%a+)%s*%.?%s*$")
    if name then return name:lower() == sample.truth:lower() and 1 or 0 end
    return verify.equal(sample.answer, sample.truth) and 1 or 0
  end,
}
