-- The share of tests that a Lua program passes. The program is the last block of code in the answer, or the answer
-- itself; the tests are row.tests: a list of texts such as 'assert(add(2, 3) == 5)', each run alone.
-- Option: fuel (1000000), instructions a test may take.
return function(sample)
  local tests = sample.row and sample.row.tests
  if type(tests) == "string" then tests = { tests } end
  if type(tests) ~= "table" or #tests == 0 then return nil, "the row has no tests" end
  local program = extract.code(sample.answer, "lua") or extract.code(sample.answer) or sample.answer
  if text.trim(program) == "" then return 0 end
  local result = run.lua(program, tests, options.fuel or 1000000)
  return result.passed / result.total
end
