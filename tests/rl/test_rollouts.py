import random
from collections import Counter

import pytest

from cookbook.rl import Episode, Step, episode_rows, play
from tests.rl.fakes import STOP, Sampler, Talk, more, player, problem

N_CONVERSATIONS = 200
PIECES = ["one", " two", "\n", "three\n\n", "é日本", "🙂", "", "  ", "<b>", "4 + 5 =", "\tx"]


def random_reply(rng, max_tokens):
    """Any tokens, ended by the stop token or by the limit; never text that anyone would write."""
    if rng.random() < 0.3:
        return [_token(rng) for _ in range(max_tokens)]
    return [*(_token(rng) for _ in range(rng.randrange(max_tokens))), STOP]


def _token(rng):
    return rng.choice([0, 1, *(rng.randrange(3, 49152) for _ in range(20))])


def random_conversation(number):
    rng = random.Random(number)
    text = lambda: "".join(rng.choices(PIECES, k=rng.randrange(4)))  # noqa: E731
    said = [
        {"role": rng.choice(["user", "tool", "system"]), "content": text()}
        for _ in range(rng.randrange(5))
    ]
    steps = [Step(done=False, messages=[message]) for message in said]
    return said, Talk(*steps, Step(), opening=f"{number} {text()}")


def layout(message):
    return f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n"


def test_what_was_sampled_is_what_is_trained(renderer, tokenizer):
    """The ChatML renderer on 200 conversations of up to 5 turns."""
    talks = [random_conversation(number) for number in range(N_CONVERSATIONS)]
    problems = [problem(str(i), lambda env=env: env) for i, (_, env) in enumerate(talks)]
    sampler = Sampler(random_reply)
    groups = play(player(renderer, max_tokens=6), sampler, problems, 1, "key")
    answered = {call.prompt: call.sequences[0] for call in sampler.calls}
    assert len(answered) == sum(len(said) + 1 for said, _ in talks) > 2 * N_CONVERSATIONS
    for (said, env), group in zip(talks, groups, strict=True):
        (episode,) = group.episodes
        assert episode.ending == "done"
        sequences = [answered[tuple(turn.prompt)] for turn in episode.turns]
        (row,) = episode_rows(episode, 1.0)
        tokens, logprobs = row.tokens.tolist(), row.logprobs.tolist()
        at = 0
        for index, (turn, sequence) in enumerate(zip(episode.turns, sequences, strict=True)):
            end = len(turn.prompt) + len(sequence.tokens)
            assert tokens[:end] == [*turn.prompt, *sequence.tokens]
            assert row.sampled[at:end].tolist() == [
                place >= len(turn.prompt) for place in range(at, end)
            ]
            assert logprobs[len(turn.prompt) : end] == sequence.logprobs
            if index:  # between two replies: the rest of the turn, the message, a header
                closed = "\n" if tokens[at - 1] == STOP else "<|im_end|>\n"
                expected = closed + layout(said[index - 1]) + "<|im_start|>assistant\n"
                assert tokenizer.decode(tokens[at : len(turn.prompt)]) == expected
            at = end
        assert at == len(tokens)
        for reply, sequence in zip(env.replies, sequences, strict=True):
            assert reply.text == tokenizer.decode([t for t in sequence.tokens if t != STOP])
            assert reply.finished == (sequence.tokens[-1] == STOP)
            assert reply.n_tokens == len(sequence.tokens)


class Fixed:
    """A renderer that is another one but for what is given here."""

    def __init__(self, renderer, **changes):
        self._renderer = renderer
        vars(self).update(changes)

    def __getattr__(self, name):
        return getattr(self._renderer, name)


def test_a_renderer_without_a_bridge_splits_the_episode(renderer, tokenizer):
    spelled = [tokenizer.convert_tokens_to_ids(letter) for letter in "hello"]
    sampler = Sampler(lambda rng, limit: [*spelled, STOP])
    no_bridge = Fixed(renderer, bridge_to_next_turn=lambda *args, **kwargs: None)
    talk = Talk(more("and?"), Step())
    (group,) = play(player(no_bridge, max_tokens=6), sampler, [problem("p", lambda: talk)], 1, "")
    (episode,) = group.episodes
    first, second = episode_rows(episode, 1.0)
    again = renderer.render_ids(list(episode.messages[:3]), add_generation_prompt=True)
    assert first.tokens.tolist() == [*episode.turns[0].prompt, *spelled, STOP]
    assert second.tokens.tolist() == [*again, *spelled, STOP]
    assert spelled[1] not in again, "the model would read its reply as other tokens"
    assert [int(row.sampled.sum()) for row in (first, second)] == [6, 6]


def test_tools_reach_the_renderer_wherever_it_needs_them(renderer):
    seen = Counter()

    def recording(name):
        def call(*args, tools=None, **kwargs):
            seen[name, str(tools)] += 1
            return getattr(renderer, name)(*args, **kwargs)

        return call

    names = ("render_ids", "parse_response", "bridge_to_next_turn")
    talk = Talk(more("and?"), Step())
    talk.tools = ["a tool"]
    recorder = Fixed(renderer, **{name: recording(name) for name in names})
    play(player(recorder), Sampler(), [problem("p", lambda: talk)], 1, "")
    assert seen == {
        ("render_ids", "['a tool']"): 1,
        ("parse_response", "['a tool']"): 2,
        ("bridge_to_next_turn", "['a tool']"): 1,
    }


# ---- requests


def test_one_prompt_at_one_moment_is_one_request():
    sampler = Sampler()
    groups = play(player(), sampler, [problem("a"), problem("b")], 5, "key")
    assert [call.n for call in sampler.calls] == [5, 5]
    assert [len(group.episodes) for group in groups] == [5, 5]
    assert len({call.seed for call in sampler.calls}) == 2
    sampled = [tuple(e.turns[0].logprobs) for group in groups for e in group.episodes]
    assert len(set(sampled)) == 10, "each episode has a sample of its own"


def test_the_request_is_what_the_player_says():
    sampler = Sampler()
    play(player(max_tokens=9), sampler, [problem("a")], 2, "key")
    assert [(c.prompt, c.stop, c.max_tokens) for c in sampler.calls] == [((1, 9), [STOP], 9)]


def test_different_prompts_are_different_requests():
    sampler = Sampler()
    openings = iter(["5", "6", "5"])
    play(player(), sampler, [problem("a", lambda: Talk(opening=next(openings)))], 3, "key")
    assert sorted((call.prompt, call.n) for call in sampler.calls) == [((1, 5), 2), ((1, 6), 1)]


def chats(name):
    return problem(name, lambda: Talk(more("20"), more("21"), more("22"), Step()))


def texts(groups):
    return [[turn.reply.text for turn in e.turns] for group in groups for e in group.episodes]


@pytest.mark.parametrize("delay", [None, lambda: random.uniform(0, 0.004)])
def test_the_same_key_gives_the_same_samples_however_answers_arrive(delay):
    problems = [chats("a"), chats("b"), chats("a")]
    first = texts(play(player(), Sampler(), problems, 4, "key"))
    assert texts(play(player(), Sampler(delay=delay), problems, 4, "key")) == first
    assert texts(play(player(), Sampler(delay=delay), problems, 4, "other")) != first
    assert first[:4] != first[8:], "a problem that stands twice in a step is sampled twice"


# ---- endings


def ended_by(**settings):
    problems = [problem("p", lambda: Talk(*[more("20", reward=1.0)] * 50))]
    (group,) = play(player(**settings), Sampler(), problems, 1, "key")
    (episode,) = group.episodes
    return episode


def test_max_turns_cuts_an_episode_off():
    episode = ended_by(max_turns=3)
    assert (episode.ending, len(episode.turns), episode.reward) == ("max_turns", 3, 3.0)


def test_max_episode_tokens_cuts_off_where_the_next_turn_would_not_fit():
    # prompts of 2, 5, 8 and 11 tokens, each answered by at most 4
    fitting = {limit: ended_by(max_tokens=4, max_episode_tokens=limit) for limit in (11, 12, 14)}
    assert {limit: len(e.turns) for limit, e in fitting.items()} == {11: 2, 12: 3, 14: 3}
    assert {e.ending for e in fitting.values()} == {"max_tokens"}


def test_done_at_the_last_turn_is_done():
    talk = Talk(more("20"), Step())
    (group,) = play(player(max_turns=2), Sampler(), [problem("p", lambda: talk)], 1, "key")
    assert group.episodes[0].ending == "done"


def test_rewards_and_metrics_add_up_over_turns():
    talk = Talk(more("20", reward=0.5, metrics={"a": 1.0}), Step(reward=2, metrics={"a": 2.0}))
    (group,) = play(player(), Sampler(), [problem("p", lambda: talk)], 1, "key")
    (episode,) = group.episodes
    assert isinstance(episode, Episode)
    assert (episode.reward, episode.metrics) == (2.5, {"a": 3.0})
    assert [m["role"] for m in episode.messages] == ["user", "assistant"] * 2
    assert group.rewards.tolist() == [2.5]


def test_progress_is_told_for_each_group():
    told = []
    play(player(), Sampler(), [problem("a"), problem("b")], 2, "", lambda *it: told.append(it))
    assert told == [(1, 2), (2, 2)]
