-- Sudoku of four by four: each row, column and corner box holds 1 to 4 once. Levels 1 to 3: 4 to 6, 7 to 9 and 10 to 12 empty
-- places; each puzzle has one solution. An answer is four lines of four numbers; any grid that fits puzzle and rules counts.
local empties = { { 4, 6 }, { 7, 9 }, { 10, 12 } }

local function fits(grid, at, value)
  local row, column = (at - 1) // 4, (at - 1) % 4
  for i = 0, 3 do
    local box = (row // 2 * 2 + i // 2) * 4 + column // 2 * 2 + i % 2 + 1
    if grid[row * 4 + i + 1] == value or grid[i * 4 + column + 1] == value or grid[box] == value then return false end
  end
  return true
end
-- How many solutions there are, two at most; the last one found stays in `keep`.
local function solve(grid, at, keep)
  while at <= 16 and grid[at] ~= 0 do at = at + 1 end
  if at > 16 then
    for i = 1, 16 do keep[i] = grid[i] end
    return 1
  end
  local count, first = 0, math.random(0, 3)
  for i = 0, 3 do
    local value = (first + i) % 4 + 1
    if count < 2 and fits(grid, at, value) then
      grid[at] = value
      count = count + solve(grid, at + 1, keep)
      grid[at] = 0
    end
  end
  return count
end
local function written(grid, blank)
  local lines = {}
  for r = 0, 3 do
    local line = {}
    for c = 1, 4 do line[c] = grid[r * 4 + c] == 0 and blank or tostring(grid[r * 4 + c]) end
    lines[r + 1] = table.concat(line, " ")
  end
  return table.concat(lines, "\n")
end
local function rows_of(grid)
  local rows = {}
  for r = 0, 3 do rows[r + 1] = { table.unpack(grid, r * 4 + 1, r * 4 + 4) } end
  return rows
end
local function full_grid()
  local grid, keep = {}, {}
  for i = 1, 16 do grid[i] = 0 end
  for i = 1, 4 do grid[i] = i end -- any first row: shuffled
  for i = 4, 2, -1 do
    local j = math.random(i)
    grid[i], grid[j] = grid[j], grid[i]
  end
  solve(grid, 5, keep)
  return keep
end

return {
  about = "sudoku of four by four",
  levels = #empties,
  generate = function(level)
    local wanted, solution, puzzle = math.random(table.unpack(empties[level])), nil, nil
    repeat
      solution = full_grid()
      puzzle = { table.unpack(solution) }
      local order, empty = {}, 0
      for i = 1, 16 do order[i] = i end
      for i = 16, 2, -1 do
        local j = math.random(i)
        order[i], order[j] = order[j], order[i]
      end
      for _, at in ipairs(order) do
        local value = puzzle[at]
        puzzle[at] = 0
        if empty == wanted or solve(puzzle, 1, {}) ~= 1 then puzzle[at] = value else empty = empty + 1 end
      end
    until empty == wanted
    local steps, wrong = {}, { table.unpack(solution) }
    for i = 1, 16 do
      if puzzle[i] == 0 then steps[#steps + 1] = "row " .. (i - 1) // 4 + 1 .. " column " .. (i - 1) % 4 + 1 .. ": " .. solution[i] end
    end
    wrong[1] = wrong[1] % 4 + 1
    return {
      prompt = "Fill in the numbers 1 to 4 so that each row, each column and each 2x2 box holds each of them once:\n" .. written(puzzle, "_")
        .. "\nAnswer with the four rows, numbers separated by spaces.",
      truth = written(solution),
      wrong = written(wrong),
      demonstration = table.concat(steps, ", ") .. ".",
      row = { puzzle = rows_of(puzzle), solution = rows_of(solution) },
    }
  end,
  score = function(sample)
    local puzzle = sample.row and sample.row.puzzle
    if not puzzle then return nil, "the row has no puzzle" end
    local grid = {}
    if #sample.answer > 400 or sample.answer:find("[^1-4%s]") then return 0 end
    for digit in sample.answer:gmatch("%S+") do grid[#grid + 1] = math.tointeger(tonumber(digit)) end
    if #grid ~= 16 then return 0 end
    for i = 1, 16 do
      local given, value = puzzle[(i - 1) // 4 + 1][(i - 1) % 4 + 1], grid[i]
      if given ~= 0 and given ~= value then return 0 end
      grid[i] = 0
      if not fits(grid, i, value) then return 0 end
      grid[i] = value
    end
    return 1
  end,
}
