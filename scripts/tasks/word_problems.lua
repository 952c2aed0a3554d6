-- Word problems in four languages: options.language is "en", "ko", "ja" or "vi". Level 1: one addition or subtraction; 2: two
-- steps; 3: a product and a difference; 4: three steps with shares. Numbers and story are drawn apart from the language, so the
-- same seed gives the same problem in each. Korean words end in vowels, so that their particles are the same ones.
-- Demonstrations are formulas; options.thinking = "en" or "ko" writes them in words, "either" in one of both by chance,
-- whatever language the question is in.
local language = options.language or "en"

local words = {
  en = { people = { "Mina", "Tom", "Sara", "Leo" }, things = { "apples", "books", "pencils", "stamps" },
    add = "{p} has {a} {t} and gets {b} more. How many {t} does {p} have now?",
    sub = "{p} has {a} {t} and gives away {b}. How many {t} does {p} have left?",
    two = "{p} has {a} {t}, gets {b} more and then gives away {c}. How many {t} does {p} have now?",
    product = "{p} buys {a} boxes with {b} {t} each and gives away {c} {t}. How many {t} are left?",
    share = "{p} buys {a} boxes with {b} {t} each, gives away {c} {t} and shares the rest equally among {d} friends. How many {t} does each friend get?" },
  ko = { people = { "민아", "준호", "지수", "서아" }, things = { "사과", "감자", "딸기", "지우개" },
    add = "{p}는 {t}를 {a}개 가지고 있는데 {b}개를 더 받았습니다. {p}가 가진 {t}는 모두 몇 개입니까?",
    sub = "{p}는 {t}를 {a}개 가지고 있는데 {b}개를 나누어 주었습니다. 남은 {t}는 몇 개입니까?",
    two = "{p}는 {t}를 {a}개 가지고 있었습니다. {b}개를 더 받고 {c}개를 나누어 주었습니다. 지금 {t}는 몇 개입니까?",
    product = "{p}는 {t}가 {b}개씩 든 상자를 {a}개 사서 {t} {c}개를 나누어 주었습니다. 남은 {t}는 몇 개입니까?",
    share = "{p}는 {t}가 {b}개씩 든 상자를 {a}개 사서 {c}개를 나누어 주고 나머지를 친구 {d}명에게 똑같이 나누어 주었습니다. 친구 한 명이 받은 {t}는 몇 개입니까?" },
  ja = { people = { "ミナ", "ケン", "サラ", "ハル" }, things = { "りんご", "みかん", "卵", "消しゴム" },
    add = "{p}さんは{t}を{a}個持っていて、さらに{b}個もらいました。{t}は全部で何個ですか。",
    sub = "{p}さんは{t}を{a}個持っていて、{b}個あげました。残りの{t}は何個ですか。",
    two = "{p}さんは{t}を{a}個持っていました。{b}個もらい、それから{c}個あげました。今、{t}は何個ありますか。",
    product = "{p}さんは{t}が{b}個ずつ入った箱を{a}箱買い、{c}個あげました。残りの{t}は何個ですか。",
    share = "{p}さんは{t}が{b}個ずつ入った箱を{a}箱買い、{c}個あげて、残りを{d}人の友だちに同じ数ずつ分けました。友だち一人の{t}は何個ですか。" },
  vi = { people = { "Minh", "Lan", "Hoa", "Nam" }, things = { "quả táo", "quyển sách", "cây bút", "con tem" },
    add = "{p} có {a} {t} và được cho thêm {b} {t} nữa. Hỏi {p} có tất cả bao nhiêu {t}?",
    sub = "{p} có {a} {t} và cho đi {b} {t}. Hỏi {p} còn lại bao nhiêu {t}?",
    two = "{p} có {a} {t}, được cho thêm {b} {t} rồi cho đi {c} {t}. Hỏi bây giờ {p} có bao nhiêu {t}?",
    product = "{p} mua {a} hộp, mỗi hộp có {b} {t}, rồi cho đi {c} {t}. Hỏi còn lại bao nhiêu {t}?",
    share = "{p} mua {a} hộp, mỗi hộp có {b} {t}, cho đi {c} {t} rồi chia đều số còn lại cho {d} người bạn. Hỏi mỗi người bạn được bao nhiêu {t}?" },
}
local text = words[language] or error("options.language is " .. tostring(language) .. ", expected en, ko, ja or vi")

local spoken = {
  en = { ["+"] = "plus", ["-"] = "minus", ["×"] = "times", ["/"] = "divided by", [","] = ", then" },
  ko = { ["+"] = "더하기", ["-"] = "빼기", ["×"] = "곱하기", ["/"] = "나누기", [","] = ", 그다음" },
}
local thinking = options.thinking
if thinking and thinking ~= "either" and not spoken[thinking] then
  error("options.thinking is " .. tostring(thinking) .. ", expected en, ko or either")
end
local function in_words(steps)
  local lang = thinking
  if lang == "either" then lang = math.random(2) == 1 and "en" or "ko" end
  return (steps:gsub("[+%-/,]", spoken[lang]):gsub("×", spoken[lang]))
end

local function draw(level)
  local a, b, c, d = math.random(3, 50), math.random(2, 40), 0, 0
  if level == 1 then
    if math.random(2) == 1 then return "add", a, b, c, d, a + b, a .. " + " .. b .. " = " .. a + b end
    a = a + b
    return "sub", a, b, c, d, a - b, a .. " - " .. b .. " = " .. a - b
  elseif level == 2 then
    c = math.random(1, a + b - 1)
    return "two", a, b, c, d, a + b - c, a .. " + " .. b .. " = " .. a + b .. ", " .. a + b .. " - " .. c .. " = " .. a + b - c
  end
  a, b = math.random(2, 12), math.random(3, 12)
  local all = a * b
  if level == 3 then
    c = math.random(1, all - 1)
    return "product", a, b, c, d, all - c, a .. " × " .. b .. " = " .. all .. ", " .. all .. " - " .. c .. " = " .. all - c
  end
  d = math.random(2, math.min(6, all // 2))
  local each = math.random(1, (all - 1) // d)
  c = all - each * d
  return "share", a, b, c, d, each,
    a .. " × " .. b .. " = " .. all .. ", " .. all .. " - " .. c .. " = " .. all - c .. ", " .. all - c .. " / " .. d .. " = " .. each
end

return {
  about = "word problems in English, Korean, Japanese and Vietnamese",
  levels = 4,
  generate = function(level)
    local person, thing = math.random(4), math.random(4)
    local kind, a, b, c, d, truth, steps = draw(level)
    local fill = { p = text.people[person], t = text.things[thing], a = a, b = b, c = c, d = d }
    return {
      prompt = text[kind]:gsub("{(%w)}", fill),
      truth = truth,
      wrong = truth + 1,
      demonstration = thinking and in_words(steps) or steps,
      identity = kind .. " " .. a .. " " .. b .. " " .. c .. " " .. d,
      row = { language = language, kind = kind },
    }
  end,
}
