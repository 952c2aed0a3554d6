"""A Python twin of what a completion's answer is and of the reward `correct`, for whole-number truths.

tests/oracle/trl_curves holds it against every sample that reckon scored before it is used beside TRL.
"""
import re

NUMBER = re.compile(r"[+-]?([0-9]+|[0-9]{1,3}(,[0-9]{3})+)")
TAGGED = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)


def answer_of(completion: str, mode: str) -> str:
    """Thinking ends at the first "</think>" (all is thinking if there is none); in direct mode all is answer. The answer is
    what stands in the last <answer>...</answer>, else all of it, trimmed."""
    rest = completion
    if mode == "think":
        _, end, rest = completion.partition("</think>")
        if not end:
            return ""
    tagged = TAGGED.findall(rest)
    return (tagged[-1] if tagged else rest).strip(" \t\n\v\f\r")


def correct(completion: str, mode: str, truth: str) -> float:
    answer = answer_of(completion, mode)
    return float(NUMBER.fullmatch(answer) is not None and int(answer.replace(",", "")) == int(truth))
