// The strings of the report, English and Korean, in one table. Names in braces are replaced (say_with). What a model, a data set or
// a recipe wrote is never looked up here.
#include "report.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const Word report_words[] = {
    // the frame
    {"run report", "reckon run report", "reckon 실행 보고서"},
    {"comparison report", "reckon comparison report", "reckon 비교 보고서"},
    {"skip", "Skip to the report", "보고서로 바로 가기"},
    {"contents", "Contents", "차례"},
    {"dark or light", "Dark / light", "어둡게 / 밝게"},
    {"as a table", "As a table", "표로 보기"},
    {"written from a ledger", "Written by reckon {version} from the run's ledger, head {head}. This file needs no network.",
     "reckon {version}이(가) 실행 원장에서 작성함, 체인 머리 {head}. 이 파일은 네트워크가 필요 없습니다."},
    {"written from a comparison", "Written by reckon {version} from a comparison. This file needs no network.",
     "reckon {version}이(가) 비교 결과에서 작성함. 이 파일은 네트워크가 필요 없습니다."},
    {"to", " to ", " ~ "},
    {"yes", "yes", "예"},
    {"all", "all", "전체"},
    {"any", "any", "모두"},
    {"not measured", "not measured", "측정 안 됨"},
    {"not stated", "not stated", "명시 안 됨"},
    {"not known", "not known", "알 수 없음"},
    {"measured", "measured", "측정"},
    {"computed", "computed", "계산"},
    {"stated", "stated", "명시"},
    // sections
    {"verdict", "Verdict", "결론"},
    {"accuracy against cost", "Accuracy against cost", "비용 대비 정확도"},
    {"by kind and level", "By kind and level", "종류와 수준별"},
    {"how it learned", "How it learned", "학습 과정"},
    {"what it wrote", "What it wrote", "모델이 쓴 글"},
    {"what it cost", "What it cost", "비용"},
    {"what was run", "What was run", "실행 내용"},
    // verdicts: a headline, two words for a cell, a sentence; for thinking against answering directly, and for any two arms
    {"headline modes a", "Thinking pays.", "생각하는 것이 이득입니다."},
    {"headline modes b", "Answering directly is better.", "바로 답하는 것이 더 낫습니다."},
    {"headline modes same", "Answering directly is as good, and cheaper.", "바로 답해도 똑같이 정확하고 더 쌉니다."},
    {"headline modes b at least", "Answering directly is as good, and cheaper.", "바로 답해도 그만큼 정확하고 더 쌉니다."},
    {"headline modes a at least", "Thinking is at least as good.", "생각하는 것이 적어도 그만큼 정확합니다."},
    {"headline modes neither", "Neither way works on these tasks.", "어느 방식도 이 과제를 풀지 못합니다."},
    {"headline modes open", "Not settled yet.", "아직 판가름 나지 않았습니다."},
    {"headline pair a", "{a} is better than {b}", "{a} > {b}"},
    {"headline pair b", "{b} is better than {a}", "{b} > {a}"},
    {"headline pair same", "{a} and {b} are as good", "{a}와 {b}는 비슷함"},
    {"headline pair b at least", "{b} is at least as good as {a}", "{b}가 {a} 이상"},
    {"headline pair a at least", "{a} is at least as good as {b}", "{a}가 {b} 이상"},
    {"headline pair neither", "neither {a} nor {b} works", "{a}도 {b}도 풀지 못함"},
    {"headline pair open", "{a} against {b}: not settled", "{a} 대 {b}: 판가름 나지 않음"},
    {"headline arms", "Measured, with nothing to compare against.", "측정했지만 비교할 상대가 없습니다."},
    {"headline evaluated", "Trained and evaluated; not compared yet.", "학습과 평가를 마쳤고 아직 비교하지 않았습니다."},
    {"headline nothing", "Nothing has been evaluated yet.", "아직 평가한 것이 없습니다."},
    {"modes a", "thinking pays", "생각이 이득"},
    {"modes b", "direct is better", "바로 답이 나음"},
    {"modes same", "direct is as good", "바로 답해도 같음"},
    {"modes b at least", "direct is as good", "바로 답해도 같음"},
    {"modes a at least", "thinking is as good", "생각해도 같음"},
    {"modes neither", "neither works", "둘 다 못 풂"},
    {"modes open", "not settled", "미정"},
    {"pair a", "the first", "앞쪽"},
    {"pair b", "the second", "뒤쪽"},
    {"pair same", "as good", "비슷함"},
    {"pair b at least", "the second is as good", "뒤쪽이 그 이상"},
    {"pair a at least", "the first is as good", "앞쪽이 그 이상"},
    {"pair neither", "neither works", "둘 다 못 풂"},
    {"pair open", "not settled", "미정"},
    {"sentence modes a", "Thinking makes {points} points of accuracy (95 %: {low} to {high}), for {times} times the tokens.",
     "생각하면 정답률이 {points}포인트 달라지고(95 %: {low} ~ {high}), 토큰은 {times}배 듭니다."},
    {"sentence modes b", "Thinking changes accuracy by {points} points (95 %: {low} to {high}): direct is better and takes {times} times fewer tokens.",
     "생각하면 정답률이 {points}포인트 달라집니다(95 %: {low} ~ {high}). 바로 답하는 쪽이 낫고 토큰은 {times}분의 1입니다."},
    {"sentence modes same", "Direct is as good and {times} times cheaper in tokens: thinking makes {points} points of difference (95 %: {low} to {high}).",
     "바로 답해도 같고 토큰은 {times}배 쌉니다. 생각의 차이는 {points}포인트입니다(95 %: {low} ~ {high})."},
    {"sentence modes b at least", "Direct is as good and {times} times cheaper in tokens: thinking makes {points} points of difference (95 %: {low} to {high}).",
     "바로 답해도 그만큼 정확하고 토큰은 {times}배 쌉니다. 생각의 차이는 {points}포인트입니다(95 %: {low} ~ {high})."},
    {"sentence modes a at least", "Thinking is at least as good, for {times} times the tokens: {points} points (95 %: {low} to {high}).",
     "생각하면 적어도 그만큼 정확하고 토큰은 {times}배 듭니다: {points}포인트(95 %: {low} ~ {high})."},
    {"sentence modes neither", "Neither way gets more right than the margin: {points} points of difference (95 %: {low} to {high}).",
     "어느 방식도 허용 오차를 넘는 정답률을 내지 못합니다: 차이 {points}포인트(95 %: {low} ~ {high})."},
    {"sentence modes open", "Not settled: {points} points (95 %: {low} to {high}); {more} more items would settle it.",
     "미정: {points}포인트(95 %: {low} ~ {high}). 문항 {more}개가 더 필요합니다."},
    {"sentence open", "Not settled: {points} points (95 %: {low} to {high}).", "미정: {points}포인트(95 %: {low} ~ {high})."},
    {"sentence pair a", "{a} is better than {b}: {points} points (95 %: {low} to {high}), tokens differing by a factor of {times}.",
     "{a}가 {b}보다 낫습니다: {points}포인트(95 %: {low} ~ {high}), 토큰 차이 {times}배."},
    {"sentence pair b", "{b} is better than {a}: {points} points (95 %: {low} to {high}), tokens differing by a factor of {times}.",
     "{b}가 {a}보다 낫습니다: {points}포인트(95 %: {low} ~ {high}), 토큰 차이 {times}배."},
    {"sentence pair same", "{a} and {b} are as good: {points} points (95 %: {low} to {high}), tokens differing by a factor of {times}.",
     "{a}와 {b}는 비슷합니다: {points}포인트(95 %: {low} ~ {high}), 토큰 차이 {times}배."},
    {"sentence pair b at least", "{b} is at least as good as {a}: {points} points (95 %: {low} to {high}), tokens differing by a factor of {times}.",
     "{b}는 적어도 {a}만큼 정확합니다: {points}포인트(95 %: {low} ~ {high}), 토큰 차이 {times}배."},
    {"sentence pair a at least", "{a} is at least as good as {b}: {points} points (95 %: {low} to {high}), tokens differing by a factor of {times}.",
     "{a}는 적어도 {b}만큼 정확합니다: {points}포인트(95 %: {low} ~ {high}), 토큰 차이 {times}배."},
    {"sentence pair neither", "Neither {a} nor {b} gets more right than the margin: {points} points (95 %: {low} to {high}).",
     "{a}도 {b}도 허용 오차를 넘는 정답률을 내지 못합니다: {points}포인트(95 %: {low} ~ {high})."},
    {"sentence pair open", "{a} against {b} is not settled: {points} points (95 %: {low} to {high}); {more} more items would settle it.",
     "{a} 대 {b}는 미정입니다: {points}포인트(95 %: {low} ~ {high}). 문항 {more}개가 더 필요합니다."},
    {"a correct answer", "a correct answer", "정답 하나"},
    {"n correct answers", "{n} correct answers", "정답 {n}개"},
    {"worth a", "At {worth} {currency} for {m}, {a} is worth more than {b}: {net} {currency} more per {n} answers.",
     "{m}의 가치가 {worth} {currency}일 때 {a}가 {b}보다 이득입니다: 답 {n}개당 {net} {currency}."},
    {"worth b", "At {worth} {currency} for {m}, {b} is worth more than {a}: {net} {currency} more per {n} answers.",
     "{m}의 가치가 {worth} {currency}일 때 {b}가 {a}보다 이득입니다: 답 {n}개당 {net} {currency}."},
    {"worth open", "At {worth} {currency} for {m} it is not settled whether {a} or {b} is worth more.",
     "{m}의 가치가 {worth} {currency}일 때 {a}와 {b} 중 무엇이 이득인지 미정입니다."},
    {"error price", "Where a wrong answer costs more than {price} {currency}, {a} pays against {b}.", "오답 하나의 비용이 {price} {currency}를 넘으면 {b}보다 {a}가 이득입니다."},
    {"error price many", "Where {n} wrong answers cost more than {price} {currency}, {a} pays against {b}.", "오답 {n}개의 비용이 {price} {currency}를 넘으면 {b}보다 {a}가 이득입니다."},
    {"break-even", "Training is repaid after {n} queries that {to} answers instead of {from}.", "{from} 대신 {to}로 질의 {n}건을 처리하면 학습 비용이 회수됩니다."},
    {"break-even never worth", "At that worth of a correct answer, {to} instead of {from} never repays the training.",
     "정답 하나의 가치가 그만큼일 때 {from} 대신 {to}를 써도 학습 비용은 회수되지 않습니다."},
    {"break-even never", "Savings alone never repay the training: an answer of {to} doesn't cost less than one of {from}.",
     "절약만으로는 학습 비용이 회수되지 않습니다: {to}의 답이 {from}의 답보다 싸지 않습니다."},
    {"gain up", "GRPO improved the hard items in think mode from {before} to {after}: {points} points (95 %: {low} to {high}).",
     "GRPO가 어려운 문항의 생각 모드 정답률을 {before}에서 {after}로 올렸습니다: {points}포인트(95 %: {low} ~ {high})."},
    {"gain down", "GRPO worsened the hard items in think mode from {before} to {after}: {points} points (95 %: {low} to {high}).",
     "GRPO가 어려운 문항의 생각 모드 정답률을 {before}에서 {after}로 낮췄습니다: {points}포인트(95 %: {low} ~ {high})."},
    {"gain open", "What GRPO did to the hard items in think mode is not settled: {before} to {after}, {points} points (95 %: {low} to {high}).",
     "GRPO가 어려운 문항의 생각 모드에 준 효과는 미정입니다: {before}에서 {after}, {points}포인트(95 %: {low} ~ {high})."},
    {"parts kinds", "By kind of task: thinking pays on {think} of {n}, direct is as good or better on {direct}, {other} not settled or out of reach.",
     "과제 종류별: {n}개 중 {think}개는 생각이 이득, {direct}개는 바로 답해도 같거나 나음, {other}개는 미정이거나 풀지 못함."},
    {"parts levels", "By level: thinking pays on {think} of {n}, direct is as good or better on {direct}, {other} not settled or out of reach.",
     "수준별: {n}개 중 {think}개는 생각이 이득, {direct}개는 바로 답해도 같거나 나음, {other}개는 미정이거나 풀지 못함."},
    {"router line", "The router thinks on {share} of the questions: {accuracy} right with {tokens} tokens an answer.",
     "라우터는 질문의 {share}에서 생각합니다: 정답률 {accuracy}, 답당 토큰 {tokens}개."},
    {"busy note",
     "The machine was busy: threads that answered waited for a processor {share} of the time that they wanted one ({least} to {most} by arm). Seconds, and prices by the "
     "hour, are higher than on a quiet machine, and not alike for all arms; tokens and FLOPs are not touched by it.",
     "측정하는 동안 기계가 바빴습니다: 답하던 스레드가 필요한 시간의 {share} 동안 프로세서를 얻지 못했습니다(방식에 따라 {least} ~ {most}). 초와 시간당 가격은 한가한 기계에서보다 높고 방식마다 "
     "다르게 높습니다. 토큰과 FLOPs는 영향을 받지 않습니다."},
    // notes that a comparison's document holds (compare_run.c, commands/compare.c), word for word
    {"note network", "{a} answers over the network: another time its answers may differ, and its tokens are another tokenizer's",
     "{a}의 답은 네트워크를 거칩니다: 다음에는 다를 수 있고, 토큰은 다른 토크나이저로 센 것입니다"},
    {"note mode", "the recipe has no words of its own for a mode: {a} was asked the same in both", "레시피에 모드별 문구가 없어 {a}에는 두 모드에서 똑같이 물었습니다"},
    {"note closed", "the thinking of {a} wasn't closed after evaluate.think_tokens: an endpoint's can't be",
     "{a}의 생각은 evaluate.think_tokens에서 닫지 않았습니다: 엔드포인트의 생각은 닫을 수 없습니다"},
    {"note unanswered", "{n} of {m} requests of {a} weren't answered and count as wrong, with no tokens; the first: {why}",
     "{a}에 보낸 요청 {m}건 중 {n}건은 답이 없어 오답으로 치고 토큰은 세지 않았습니다. 첫 번째: {why}"},
    {"note script", "the script of {a} failed on {n} of {m} draws, which couldn't be chosen; the first: {why}",
     "{a}의 스크립트가 표본 {m}개 중 {n}개에서 실패해 그 표본은 고를 수 없었습니다. 첫 번째: {why}"},
    {"note tasks", "{a} was made with other tasks or another share held out: items here may have been among those it was trained on",
     "{a}는 다른 과제나 다른 분할로 만들어졌습니다: 여기 문항이 학습에 쓰였을 수 있습니다"},
    {"how to compare", "To hold thinking against answering directly: reckon compare RUN", "생각과 바로 답하기를 비교하려면: reckon compare RUN"},
    {"evaluated", "Held-out accuracy after step {step}, {name}: {last}.", "{step}단계 뒤 따로 둔 문항 정답률, {name}: {last}."},
    {"evaluated from to", "Held-out accuracy after step {step}, {name}: {last}, from {first} at first.", "{step}단계 뒤 따로 둔 문항 정답률, {name}: {last} (처음 {first})."},
    {"tile correct", "Correct", "정답률"},
    {"tile tokens", "Tokens an answer", "답당 토큰"},
    {"tile pass", "Cost of {n} correct answers", "정답 {n}개의 비용"},
    {"tile flops", "FLOPs per correct answer", "정답당 FLOPs"},
    {"tile run", "The whole run", "실행 전체"},
    {"tile training", "Training", "학습"},
    // frontier and arms
    {"frontier", "The efficient frontier", "효율 경계"},
    {"frontier note",
     "Each point is one way of asking. Bars are 95 % intervals. The dashed line joins the efficient ones: none other is right at least as often for less. "
     "Paler points are not efficient.",
     "점 하나가 묻는 방식 하나입니다. 막대는 95 % 구간입니다. 점선은 효율적인 것들을 잇습니다: 더 적은 비용으로 그만큼 맞히는 다른 방식이 없습니다. 흐린 점은 효율적이지 않습니다."},
    {"cost in", "cost in", "비용 단위"},
    {"cost money_per_item", "{currency} per {n} answers", "답 {n}개당 {currency}"},
    {"cost flops", "FLOPs an answer", "답당 FLOPs"},
    {"cost tokens", "new tokens an answer", "답당 새 토큰"},
    {"cost seconds_per_item", "seconds an answer", "답당 초"},
    {"cost joules_per_item", "joules an answer", "답당 줄(J)"},
    {"cost joules_per_item estimated", "joules an answer (estimate from stated watts)", "답당 줄(J, 명시된 와트로 추정)"},
    {"arm", "arm", "방식"},
    {"arms", "Arms", "방식"},
    {"arms note",
     "Means over all items; under each accuracy its 95 % interval. Cost of a pass: the mean cost of an attempt over the success rate. Efficiency: tokens until "
     "the first correct answer over all tokens.",
     "모든 문항의 평균이며 정답률 아래는 95 % 구간입니다. 성공 비용: 시도의 평균 비용을 성공률로 나눈 값. 효율: 첫 정답까지의 토큰을 전체 토큰으로 나눈 값."},
    {"correct", "correct", "정답"},
    {"tokens", "tokens", "토큰"},
    {"median", "median", "중앙값"},
    {"95th", "95th %", "95 백분위"},
    {"of them thinking", "thinking", "생각"},
    {"cut off", "cut off", "잘림"},
    {"time", "time", "시간"},
    {"latency", "latency", "지연"},
    {"joules", "joules", "줄(J)"},
    {"joules estimated", "joules (estimate)", "줄(J, 추정)"},
    {"money", "money", "금액"},
    {"cost of correct", "{currency} per {n} correct", "정답 {n}개당 {currency}"},
    {"tokens per correct", "tokens per correct", "정답당 토큰"},
    {"efficiency", "efficiency", "효율"},
    {"efficient", "efficient", "효율적"},
    {"seeds", "Several seeds", "여러 시드"},
    {"of each seed", "of each seed", "시드별"},
    {"between seeds", "variance between seeds", "시드 간 분산"},
    {"within seeds", "variance within", "시드 내 분산"},
    {"error of the mean", "standard error", "표준 오차"},
    {"seeds note",
     "Between: of the seeds' accuracies. Within: what a single seed's accuracy varies by, since its items are a sample. The standard error is of the mean over all "
     "seeds, items taken as clusters.",
     "시드 간: 시드별 정답률의 분산. 시드 내: 문항이 표본이어서 한 시드의 정답률이 갖는 분산. 표준 오차는 모든 시드의 평균에 대한 것이며 문항을 군집으로 봅니다."},
    {"differences", "Differences", "차이"},
    {"pairs note",
     "The first arm less the second, paired by item: percentage points with their bootstrap interval, McNemar's exact test, Holm's correction for many "
     "comparisons; then how many times as much the first one takes.",
     "첫째 방식에서 둘째를 뺀 값으로 문항별 짝비교입니다: 퍼센트포인트와 부트스트랩 구간, 맥니마 정확 검정, 다중 비교에 대한 홀름 보정; 이어서 첫째가 몇 배 드는지."},
    {"points", "points", "포인트"},
    // by kind and level
    {"kinds and levels", "Kinds and levels", "종류와 수준"},
    {"kind and level", "kind and level", "종류와 수준"},
    {"level and mode", "level and mode", "수준과 방식"},
    {"levels note", "Under each accuracy its 95 % interval (Wilson). Tokens are means of an answer; a pass costs what an attempt costs over the success rate.",
     "정답률 아래는 95 % 구간(윌슨)입니다. 토큰은 답의 평균이고 성공 비용은 시도의 비용을 성공률로 나눈 값입니다."},
    {"items", "items", "문항"},
    {"every arm", "Every arm's accuracy", "방식별 정답률"},
    {"budgets", "Thinking budget", "생각 예산"},
    {"thinking tokens", "thinking tokens (mean)", "생각 토큰(평균)"},
    {"budgets note", "Thinking is cut off after so many tokens and the answer is asked for; the first point is answering directly, the last one thinking without a limit.",
     "정해진 토큰 수에서 생각을 끊고 답을 요구합니다. 첫 점은 바로 답하기, 마지막 점은 제한 없는 생각입니다."},
    {"router", "Router", "라우터"},
    {"policy", "policy", "방침"},
    {"thinks", "thinks", "생각 비율"},
    {"always think", "always think", "항상 생각"},
    {"always direct", "always direct", "항상 바로 답"},
    {"routed", "routed", "라우터"},
    {"routed, task not told", "routed, task not told", "라우터, 과제 모름"},
    {"best possible", "best possible", "가능한 최선"},
    {"router note", "Fitted on {fitted} items of a split of its own, judged on {judged} held-out ones.", "별도 문항 {fitted}개로 맞추고 따로 둔 {judged}개로 평가했습니다."},
    // training
    {"training note",
     "Faint: each step. Strong: a moving mean. Dotted lines begin a stage. Samples of a rollout were drawn at the training temperature; held-out accuracy is its "
     "own measurement.",
     "흐린 선은 각 단계, 진한 선은 이동 평균입니다. 점선에서 스테이지가 시작됩니다. 롤아웃 표본은 학습 온도로 뽑았고, 따로 둔 문항의 정답률은 별도 측정입니다."},
    {"step", "step", "단계"},
    {"mean reward", "Mean reward", "평균 보상"},
    {"parts of the reward", "Parts of the reward", "보상의 구성"},
    {"held-out accuracy", "Held-out accuracy", "따로 둔 문항 정답률"},
    {"accuracy by level, think", "Held-out accuracy by level, think", "수준별 정답률, 생각"},
    {"accuracy by level, direct", "Held-out accuracy by level, direct", "수준별 정답률, 바로 답"},
    {"tokens a completion", "Tokens a completion", "완성당 토큰"},
    {"thinking", "thinking", "생각"},
    {"answer", "answer", "답"},
    {"entropy", "Entropy, nats a token", "엔트로피, 토큰당 내트"},
    {"KL", "KL against the reference", "기준 모델과의 KL"},
    {"load of experts", "Load of the busiest expert, over the mean", "가장 바쁜 전문가의 부하(평균 대비)"},
    {"gradient norm", "Gradient norm", "기울기 크기"},
    {"loss of supervised steps", "Loss of supervised steps", "지도 학습 단계의 손실"},
    {"loss of GRPO steps", "Loss of GRPO steps", "GRPO 단계의 손실"},
    {"clipped tokens", "Clipped tokens", "잘린 비율의 토큰"},
    {"completions cut off", "Completions cut off", "길이에서 잘린 완성"},
    {"groups without variance", "Groups without variance", "차이 없는 그룹"},
    {"evaluations", "Evaluations", "평가"},
    {"first", "first", "처음"},
    {"last", "last", "마지막"},
    {"lowest", "lowest", "최저"},
    {"highest", "highest", "최고"},
    // samples
    {"samples note", "Completions as they were sampled, word for word. Held-out answers of the first and the last evaluation stand side by side.",
     "뽑힌 그대로의 완성입니다. 따로 둔 문항의 첫 평가와 마지막 평가의 답을 나란히 볼 수 있습니다."},
    {"samples need a script", "Reading samples needs this page's own script.", "표본을 읽으려면 이 페이지의 스크립트가 필요합니다."},
    {"samples found", "{n} of {all} samples", "표본 {all}개 중 {n}개"},
    {"no samples", "No sample fits.", "맞는 표본이 없습니다."},
    {"from", "from", "출처"},
    {"text", "text", "본문"},
    {"training", "training", "학습"},
    {"held out", "held out", "따로 둔 문항"},
    {"comparison", "comparison", "비교"},
    {"right", "right", "맞음"},
    {"wrong", "wrong", "틀림"},
    {"better", "better than its group", "그룹보다 나음"},
    {"worse", "worse than its group", "그룹보다 못함"},
    {"equal", "equal in its group", "그룹과 같음"},
    {"abstained", "abstained", "기권"},
    {"error", "error", "오류"},
    {"budget", "over budget", "예산 초과"},
    {"killed", "killed", "강제 종료"},
    {"expected", "expected", "정답"},
    {"reward", "reward", "보상"},
    {"advantage", "advantage", "이득(advantage)"},
    {"beside it", "Beside it:", "나란히:"},
    {"nothing", "nothing", "없음"},
    {"before", "before", "이전"},
    {"after", "after", "이후"},
    {"logprob", "logprob", "로그확률"},
    {"token colours", "How likely each token was:", "토큰의 확률:"},
    // cost
    {"cost by part", "Cost by part", "부분별 비용"},
    {"part", "part", "부분"},
    {"steps", "steps", "단계"},
    {"tokens sampled", "tokens sampled", "뽑은 토큰"},
    {"tokens trained", "tokens trained", "학습한 토큰"},
    {"sampling", "sampling", "표본 뽑기"},
    {"waiting for rewards", "waiting for rewards", "보상 대기"},
    {"work done twice", "work done twice", "두 번 한 일"},
    {"total", "total", "합계"},
    {"cost note", "Under each figure where it comes from: counted or from a clock or meter (measured), from shapes (computed), from the recipe (stated).",
     "각 값 아래는 출처입니다: 세었거나 시계·계량기로 잰 값(측정), 형상에서 얻은 값(계산), 레시피에 적힌 값(명시)."},
    {"wasted FLOPs", "FLOPs without effect", "효과 없는 FLOPs"},
    {"hours by device", "Time by device", "장치별 시간"},
    {"device", "device", "장치"},
    {"base ledger", "It began with {path}, which cost {flops} FLOPs by its own ledger; these are not in the sum above.",
     "{path}에서 시작했으며 그 원장에 따르면 {flops} FLOPs가 들었습니다. 위 합계에는 들어 있지 않습니다."},
    {"base card", "It began with {path}, which cost {flops} FLOPs by its card; these are not in the sum above.",
     "{path}에서 시작했으며 그 카드에 따르면 {flops} FLOPs가 들었습니다. 위 합계에는 들어 있지 않습니다."},
    {"base none", "It began with {path}; what that cost is not known, and {flops} in no sum here.", "{path}에서 시작했으며 그 비용은 알 수 없습니다({flops})."},
    {"sums hold", "The parts add up to what the ledger holds in all.", "부분의 합이 원장 전체와 일치합니다."},
    {"sums fail", "ERROR: the parts do not add up to what the ledger holds in all; reckon cost tells which.", "오류: 부분의 합이 원장 전체와 일치하지 않습니다. reckon cost에서 확인할 수 있습니다."},
    {"without effect", "Of which without effect", "그중 효과 없는 것"},
    {"what", "what", "내용"},
    {"share", "share", "비율"},
    {"groups_without_variance", "groups with equal rewards, which taught nothing", "보상이 모두 같아 배울 것이 없던 그룹"},
    {"untrained_tokens", "sampled tokens that entered no update", "학습에 쓰이지 않은 표본 토큰"},
    {"truncated_samples", "completions cut off at the longest allowed", "최대 길이에서 잘린 완성"},
    {"unscored_samples", "completions that got no score", "점수를 받지 못한 완성"},
    {"repeated_flops", "FLOPs done twice, after a run was cut off", "실행이 끊겨 두 번 한 FLOPs"},
    // what was run
    {"replayable", "The replayable part of this run is a function of its recipe. The same binary and recipe on the same instruction variant end with the same head.",
     "이 실행의 재현 가능한 부분은 레시피의 함수입니다. 같은 프로그램과 레시피를 같은 명령어 변형에서 돌리면 같은 체인 머리로 끝납니다."},
    {"not replayable", "This run is not replayable: verdicts of rewards were decided by a clock or by the death of a process, or a teacher's answers are another program's; another run may come to others.",
     "이 실행은 재현할 수 없습니다: 보상 판정이 시계나 프로세스의 종료로 정해졌거나 교사의 답이 다른 프로그램의 것이므로 다시 돌리면 달라질 수 있습니다."},
    {"to replay", "To replay and to prove", "재현과 증명"},
    {"head", "head of the replayable chain", "재현 체인의 머리"},
    {"replay", "to replay", "재현"},
    {"compare heads", "to compare the heads", "머리 비교"},
    {"prove", "to prove this run", "이 실행의 증명"},
    {"data made", "Rows that a stage made of its samples", "한 단계가 표본에서 만든 행"},
    {"facts", "Facts that fix the result", "결과를 정하는 사실"},
    {"machine", "The machine", "기계"},
    {"recipe", "The recipe as it was written", "작성된 레시피"},
    {"settings", "Every setting of the recipe, defaults included", "기본값을 포함한 모든 설정"},
    {"what happened", "What happened, by the clock", "시각별 사건"},
    {"at", "at", "시각"},
    {"detail", "detail", "상세"},
    {"the comparison", "The comparison", "비교"},
    {"prices", "Prices", "가격"},
    {"model", "Model", "모델"},
    {NULL, NULL, NULL}};

const char *say(const Report *r, const char *key) {
    for (const Word *w = report_words; w->key; w++)
        if (!strcmp(w->key, key)) return r->korean ? w->korean : w->english;
    return key;
}

// The fields of `text` if it reads as `form` does, pieces of which stand between names in braces; false: it doesn't.
enum { MOST_FIELDS = 6 };
typedef struct Fields {
    const char *name[MOST_FIELDS], *value[MOST_FIELDS];
    size_t name_size[MOST_FIELDS], value_size[MOST_FIELDS];
    int count;
} Fields;
static bool match(const char *form, const char *text, Fields *out) {
    out->count = 0;
    for (;;) {
        size_t n = strcspn(form, "{");
        if (strncmp(form, text, n) != 0) return false;
        form += n, text += n;
        if (!*form) return !*text;
        const char *close = strchr(form, '}');
        if (!close || out->count == MOST_FIELDS) return false;
        char piece[200];
        snprintf(piece, sizeof piece, "%.*s", (int)strcspn(close + 1, "{"), close + 1);
        const char *end = *piece ? strstr(text, piece) : text + strlen(text);
        if (!end) return false;
        int i = out->count++;
        out->name[i] = form + 1, out->name_size[i] = (size_t)(close - form - 1), out->value[i] = text, out->value_size[i] = (size_t)(end - text);
        form = close + 1, text = end;
    }
}
// What a comparison's note says, in the report's language; one that isn't in the table stays as it is.
json_t *note_said(const Report *r, const char *note) {
    Fields f;
    for (const Word *w = report_words; r->korean && w->key; w++) {
        if (strncmp(w->key, "note ", 5) != 0 || !match(w->english, note, &f)) continue;
        Buf out = {0};
        for (const char *text = w->korean; *text;) {
            const char *close = *text == '{' ? strchr(text, '}') : NULL;
            for (int i = 0; close && i < f.count; i++)
                if (f.name_size[i] == (size_t)(close - text - 1) && !memcmp(f.name[i], text + 1, f.name_size[i])) buf_append(&out, f.value[i], f.value_size[i]);
            if (!close) buf_append(&out, text, 1);
            text = close ? close + 1 : text + 1;
        }
        json_t *said = visible_json(out.data ? out.data : "", out.size);
        buf_free(&out);
        return said;
    }
    return visible_string(note);
}

json_t *say_with(const Report *r, const char *key, ...) {
    Buf out = {0};
    for (const char *text = say(r, key); *text;) {
        const char *close = *text == '{' ? strchr(text, '}') : NULL, *name, *value, *found = NULL;
        if (!close) {
            buf_append(&out, text++, 1);
            continue;
        }
        va_list pairs;
        va_start(pairs, key);
        while ((name = va_arg(pairs, const char *))) {
            value = va_arg(pairs, const char *);
            if (strlen(name) == (size_t)(close - text - 1) && !memcmp(name, text + 1, strlen(name))) found = value;
        }
        va_end(pairs);
        if (found) buf_puts(&out, found);
        text = close + 1;
    }
    json_t *said = visible_json(out.data ? out.data : "", out.size);
    buf_free(&out);
    return said;
}
