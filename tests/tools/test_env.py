"""Every way an episode with tools can go, through the real renderer."""

import random

import pytest

from cookbook.grading import exact_match
from cookbook.rl import Problem, episode_rows, play
from cookbook.search import Fts5Index, SearchTool
from cookbook.tools import CallLimits, ToolEnv
from tests.rl.fakes import STOP, Sampler, player
from tests.rl.test_rollouts import Fixed
from tests.search.passages import PASSAGES
from tests.tools.test_calls import Sleeper

QUESTION = [{"role": "user", "content": "Which pet does Ada Fenn have?"}]
CALL = '<tool_call>[{"name": "search", "arguments": {"query": "Ada Fenn pet"}}]</tool_call>'
TWO = (
    '<tool_call>[{"name": "search", "arguments": {"query": "Ada Fenn pet"}}, '
    '{"name": "search", "arguments": {"query": "Ada Holt pet"}}]</tool_call>'
)
SLOW = '<tool_call>[{"name": "nap", "arguments": {"seconds": 60}}]</tool_call>'
BUG = '<tool_call>[{"name": "nap", "arguments": {"seconds": 0, "said": "bug"}}]</tool_call>'


def episode(renderer, tokenizer, *replies, finished=True, **settings):
    """An episode in which the model says these texts, one a turn."""
    texts = iter(replies)

    def say(rng, limit):
        tokens = tokenizer.encode(next(texts), add_special_tokens=False)
        return [*tokens, STOP] if finished else tokens

    def make_env():
        return ToolEnv(
            **{
                "messages": QUESTION,
                "grade": lambda text: exact_match(["hamster"], text),
                "offered": [SearchTool(Fts5Index(PASSAGES), k=1), Sleeper()],
                "limits": CallLimits(timeout_s=0.2),
                **settings,
            }
        )

    (group,) = play(
        player(renderer, max_tokens=400), Sampler(say), [Problem("p", make_env)], 1, "key"
    )
    return group


def outcome(group):
    (played,) = group.episodes
    assert played.ending == "done"
    names = ("calls", "failed_calls", "broken_calls", "correct", "format")
    return played.reward, tuple(int(played.metrics[name]) for name in names)


@pytest.mark.parametrize(
    ("replies", "reward", "told"),
    [
        # calls, failed, broken, correct, format
        (["A hamster."], 1.0, (0, 0, 0, 1, 1)),
        (["goat"], 0.0, (0, 0, 0, 0, 1)),
        ([""], 0.0, (0, 0, 0, 0, 1)),
        ([CALL, "hamster"], 1.0, (1, 0, 0, 1, 1)),
        ([f"Let me see. {CALL}", "hamster"], 1.0, (1, 0, 0, 1, 1)),
        ([TWO, "hamster"], 1.0, (2, 0, 0, 1, 1)),
        ([CALL + CALL, "hamster"], 1.0, (2, 0, 0, 1, 1)),
        ([CALL, CALL, "hamster"], 1.0, (2, 0, 0, 1, 1)),
        ([CALL.replace("[", "").replace("]", ""), "hamster"], 1.0, (1, 0, 0, 1, 1)),
        (["<tool_call>[]</tool_call>"], 0.0, (0, 0, 0, 0, 1)),
        ([CALL.replace("search", "find"), "hamster"], 1.0, (1, 1, 0, 1, 1)),
        ([CALL.replace("query", "q"), "hamster"], 1.0, (1, 1, 0, 1, 1)),
        ([SLOW, "hamster"], 1.0, (1, 1, 0, 1, 1)),
        ([CALL] * 4, -0.1, (3, 0, 0, 0, 0)),
        ([CALL.replace("}}", "}")], -0.1, (0, 0, 1, 0, 0)),
        ([CALL.replace("</tool_call>", "")], -0.1, (0, 0, 1, 0, 0)),
        ([CALL.replace('"name"', '"nom"')], -0.1, (0, 0, 1, 0, 0)),
        (["<tool_call>[7]</tool_call>"], -0.1, (0, 0, 1, 0, 0)),
        (["<tool_call>" + "[" * 300 + "</tool_call>"], -0.1, (0, 0, 1, 0, 0)),
        ([f"{CALL}<tool_call>nonsense</tool_call>"], -0.1, (0, 0, 1, 0, 0)),
        ([CALL, "<tool_call>"], -0.1, (1, 0, 1, 0, 0)),
    ],
    ids=range(21),
)
def test_outcomes(renderer, tokenizer, replies, reward, told):
    found, metrics = outcome(episode(renderer, tokenizer, *replies))
    assert found == pytest.approx(reward)
    assert metrics == told


def test_a_reply_that_is_cut_off_ends_the_episode_and_calls_nothing(renderer, tokenizer):
    for text in ("hamster", CALL):
        reward, told = outcome(episode(renderer, tokenizer, text, finished=False))
        assert reward == pytest.approx(-0.1)
        assert told == (0, 0, 0, 0, 0)


def test_a_bug_of_a_tool_costs_the_episode_and_says_so(renderer, tokenizer):
    group = episode(renderer, tokenizer, BUG)
    assert group.failures == ["error: KeyError: 'bed'"]


def test_without_tools_a_call_is_text(renderer, tokenizer):
    reward, told = outcome(episode(renderer, tokenizer, CALL, offered=()))
    assert (reward, told) == (0.0, (0, 0, 0, 0, 1))


def test_results_are_messages_and_masked(renderer, tokenizer):
    """The row holds both replies token for token; of the tools' answers nothing is trained."""
    (played,) = episode(renderer, tokenizer, TWO, CALL, "hamster").episodes
    roles = [message["role"] for message in played.messages]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "tool", "assistant"]
    (row,) = episode_rows(played, 1.0)
    texts = ["".join(tokenizer.decode(run)) for run in runs(row)]
    assert texts == [f"{TWO}<|im_end|>", f"{CALL}<|im_end|>", "hamster<|im_end|>"]
    read = tokenizer.decode(row.tokens[~row.sampled])
    for passage in PASSAGES[0], PASSAGES[2]:
        assert f"<|im_start|>tool\n{passage.text}<|im_end|>\n" in read
    assert not row.logprobs[~row.sampled].any()
    assert not row.advantages[~row.sampled].any()


def runs(row):
    """The runs of sampled tokens of a row."""
    found, before = [], False
    for token, sampled in zip(row.tokens.tolist(), row.sampled.tolist(), strict=True):
        if sampled and not before:
            found.append([])
        if sampled:
            found[-1].append(token)
        before = sampled
    return found


N_EPISODES = 150
PIECES = [
    CALL,
    TWO,
    SLOW.replace("60", "0"),
    CALL.replace("search", "find"),
    "text ",
    "\n",
    "🙂",
    "é",
]


def test_what_was_sampled_is_what_is_trained_whatever_was_called(renderer, tokenizer):
    """Random replies with calls: their tokens, masks and log-probabilities survive every turn."""

    def say(rng, limit):
        if rng.random() < 0.8:
            text = "".join(rng.choices(PIECES, k=rng.randrange(1, 4)))
            tokens = tokenizer.encode(text, add_special_tokens=False)
        else:
            tokens = [rng.randrange(3, 49152) for _ in range(rng.randrange(1, 9))]
        return [*tokens, STOP] if rng.random() < 0.9 else tokens

    offered = [SearchTool(Fts5Index(PASSAGES)), Sleeper()]
    problems = [
        Problem(str(n), lambda n=n: ToolEnv([{"role": "user", "content": str(n)}], bool, offered))
        for n in range(N_EPISODES)
    ]
    sampler = Sampler(say)
    groups = play(player(renderer, max_tokens=400), sampler, problems, 1, "key")
    answered = {call.prompt: call.sequences[0] for call in sampler.calls}
    n_turns = 0
    for group in groups:
        (played,) = group.episodes
        n_turns += len(played.turns)
        (row,) = episode_rows(played, 1.0)
        sampled, logprobs, tokens = [], [], row.tokens.tolist()
        for turn in played.turns:
            sequence = answered[tuple(turn.prompt)]
            start, end = len(turn.prompt), len(turn.prompt) + len(sequence.tokens)
            assert tokens[:end] == [*turn.prompt, *sequence.tokens]
            assert row.sampled[start:end].all()
            sampled += sequence.tokens
            logprobs += sequence.logprobs
        assert row.tokens[row.sampled].tolist() == sampled
        assert row.logprobs[row.sampled].tolist() == logprobs
        n_tools = sum(message["role"] == "tool" for message in played.messages)
        opened = tokenizer.encode("<|im_start|>tool\n", add_special_tokens=False)
        read = " ".join(map(str, row.tokens[~row.sampled].tolist()))
        assert read.count(" ".join(map(str, opened))) == n_tools
    assert n_turns > 1.5 * N_EPISODES


def test_random_calls_never_break_the_environment(renderer, tokenizer):
    """Replies made of the format's own pieces, in any order: no episode fails."""
    bits = ["<tool_call>", "</tool_call>", "[", "]", "{", "}", '"name"', ": ", '"search"', ", "]
    bits += [
        '"arguments"',
        '"query"',
        '"Ada"',
        "null",
        "1e999",
        "NaN",
        "\\u0000",
        "\x00",
        '"',
        "<|im_start|>",
    ]
    rng = random.Random(0)
    for _ in range(150):
        text = "".join(rng.choices(bits, k=rng.randrange(1, 25)))
        group = episode(renderer, tokenizer, text, *["x"] * 3)
        assert list(group.failures) == [], text


def test_without_a_bridge_the_calls_are_laid_out_again(renderer, tokenizer):
    """As some renderers do once a user speaks; the history then holds what was understood."""
    no_bridge = Fixed(renderer, bridge_to_next_turn=lambda *args, **kwargs: None)
    spaced = TWO.replace(", ", " ,  ")
    (played,) = episode(no_bridge, tokenizer, spaced, "hamster").episodes
    assert played.reward == 1
    first, second = episode_rows(played, 1.0)
    assert spaced in tokenizer.decode(first.tokens)
    assert TWO in tokenizer.decode(second.tokens[~second.sampled])
