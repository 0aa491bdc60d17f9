"""Games between two sides of one policy, and against programs, with scripted replies."""

import asyncio
import random
import re
from collections import Counter

import numpy as np
import pytest

from cookbook.envs import tic_tac_toe as rules
from cookbook.envs.self_play import (
    Game,
    SelfPlay,
    board_prompt,
    match_problems,
    model_player,
    parse_move,
    play_out,
    program_player,
    self_play_problems,
)
from cookbook.errors import ConfigError
from cookbook.rl import episode_advantages, group_rows, play
from tests.rl.fakes import STOP, Sampler, player

OTHER = {"X": "O", "O": "X"}


@pytest.mark.parametrize("text", ["5", " 5", "5\n"])
def test_a_move_is_one_digit(text):
    assert parse_move(text) == 5


@pytest.mark.parametrize(
    "text", ["", "0", "55", "5.", "five", "X5", "5 6", "\u0665", "²", "-5", "5\n6"]
)
def test_nothing_else_is_a_move(text):
    assert parse_move(text) is None


def test_a_prompt_shows_the_board_and_whose_turn_it_is():
    for board in rules.positions():
        if not rules.legal_moves(board):
            continue
        lines = board_prompt(board).splitlines()
        assert lines[1] == f"You are {rules.side_to_move(board)}."
        shown = [mark for row in lines[2:5] for mark in row.split("|")]
        assert [int(mark) for mark in shown if mark.isdigit()] == rules.legal_moves(board)
        assert "".join(mark if mark in "XO" else "." for mark in shown) == board
        assert [int(line.split()[-1]) for line in lines[5:]] == rules.legal_moves(board)


def test_a_prompt_tells_of_each_free_square_whose_pair_it_completes():
    for board in rules.positions():
        mine = rules.side_to_move(board)
        theirs = OTHER[mine]
        for line in board_prompt(board).splitlines()[5:]:
            told, _, square = line.rpartition(" ")
            whose = {"your pair": mine, "their pair": theirs}
            ended = [name for name, side in whose.items() if ends_a_pair(board, side, int(square))]
            assert told == ", ".join(ended)


def ends_a_pair(board, side, square):
    lines = [line for line in rules.LINES if square in line]
    return any(all(board[s - 1] == side for s in line if s != square) for line in lines)


def test_what_boards_have_in_common_comes_first():
    prompts = [board_prompt(board) for board in ("X........", "X.O......", "XXO......")]
    opening = "Tic-tac-toe. Reply with the number of a free square.\nYou are "
    assert all(prompt.startswith(opening) for prompt in prompts)


class Boards:
    """A renderer for these prompts: a board's rows as letters' codes, a move as its digit."""

    def render_ids(self, messages, *, tools=None, add_generation_prompt=False):
        return [1, *(ord(letter) for m in messages for letter in m["content"])]

    def parse_response(self, token_ids, *, tools=None, prompt_ids=None):
        from renderers import ParsedResponse

        return ParsedResponse(content="".join(chr(t) for t in token_ids if t != STOP))

    def get_stop_token_ids(self):
        return [STOP]

    def bridge_to_next_turn(self, *args, **kwargs):
        raise AssertionError("a board is a fresh prompt")


class Mover(Sampler):
    """A policy that makes any legal move; with a chance of `illegal` it names square 1 to 9."""

    def __init__(self, illegal: float = 0.0) -> None:
        super().__init__()
        self.illegal = illegal

    async def _answer(self, call):
        free = re.findall(r"[1-9]", "".join(map(chr, call.prompt[1:])))
        self.reply = lambda rng, limit: [
            ord(rng.choice("123456789" if rng.random() < self.illegal else free)),
            STOP,
        ]
        return await super()._answer(call)


class Watched(SelfPlay):
    """Self-play whose games can be looked at."""

    def make_envs(self, size):
        envs = super().make_envs(size)
        GAMES[self.name] = [env.game for env in envs[::2]]
        return envs


GAMES: dict[str, list[Game]] = {}


@pytest.mark.parametrize("illegal", [0.0, 0.3])
def test_every_game_is_zero_sum_and_tells_both_sides_the_same(illegal):
    boards = [problem.name.split()[1] for problem in self_play_problems(12, seed=0)]
    problems = [Watched(board, board=board) for board in boards]
    groups = play(player(Boards()), Mover(illegal), problems, 8, "key")
    n_forfeits = 0
    for board, group in zip(boards, groups, strict=True):
        assert list(group.failures) == []
        games = GAMES[board]
        assert len(games) == 4
        n_forfeits += sum(bool(game.forfeited) for game in games)
        for side in rules.SIDES:
            assert [game.outcome("X") for game in games] == [-game.outcome("O") for game in games]
            # A side whose game ended before its first turn has no episode.
            had_a_turn = [game for game in games if moves_of(game, board, side)]
            rewards = [e.reward for e in group.episodes if e.player == side]
            assert rewards == [game.outcome(side) for game in had_a_turn]
        for episode in group.episodes:
            assert {turn.reward for turn in episode.turns[:-1]} <= {0}
            told = episode.metrics
            assert told["win"] + told["draw"] + told["loss"] == 1
            assert episode.reward == told["win"] - told["loss"]
            assert told["illegal"] <= told["loss"]
    assert bool(n_forfeits) == bool(illegal)


def moves_of(game, board, side):
    """How many replies a side gave, its forfeit included."""
    first = rules.side_to_move(board)
    made = len(game.boards) - 1
    own = (made + 1) // 2 if side == first else made // 2
    return own + (game.forfeited == side)


def test_the_sides_move_in_turn_and_only_read_the_present_board():
    (group,) = play(player(Boards()), Mover(), [SelfPlay("p")], 2, "key")
    x, o = group.episodes
    board = rules.EMPTY
    for number in range(len(x.turns) + len(o.turns)):
        turn = (x, o)[number % 2].turns[number // 2]
        assert list(turn.prompt) == Boards().render_ids([{"content": board_prompt(board)}])
        board = rules.play(board, int(turn.reply.text))
    assert not rules.legal_moves(board)


def test_a_move_is_a_row_of_its_own_and_nothing_of_the_other_side_is_trained():
    (group,) = play(player(Boards()), Mover(), [SelfPlay("p")], 8, "key")
    (advantages,) = episode_advantages([group])
    rows = group_rows(group, advantages, keep_constant=True)
    turns = [
        (turn, advantage)
        for episode, advantage in zip(group.episodes, advantages, strict=True)
        for turn in episode.turns
    ]
    assert len(rows) == len(turns)
    for row, (turn, advantage) in zip(rows, turns, strict=True):
        assert row.tokens.tolist() == [*turn.prompt, *turn.tokens]
        assert row.sampled.tolist() == [False] * len(turn.prompt) + [True] * len(turn.tokens)
        assert row.advantages[row.sampled].tolist() == [advantage] * len(turn.tokens)
        assert not row.advantages[~row.sampled].any()


def test_a_side_is_compared_with_its_own_side_only():
    groups = play(player(Boards()), Mover(), self_play_problems(6, seed=1), 12, "key")
    for group, advantages in zip(groups, episode_advantages(groups), strict=True):
        for side in rules.SIDES:
            own = np.array([episode.player == side for episode in group.episodes])
            rewards = group.rewards[own]
            assert advantages[own] == pytest.approx(rewards - rewards.mean())


def test_a_side_without_a_turn_is_left_out_without_a_failure():
    wrong = Sampler(lambda rng, limit: [ord("x"), STOP])
    (group,) = play(player(Boards()), wrong, [SelfPlay("p")], 4, "key")
    assert [(e.player, e.reward, e.metrics["illegal"]) for e in group.episodes] == [
        ("X", -1, 1)
    ] * 2
    assert list(group.failures) == []


def test_a_forfeit_is_won_by_a_side_that_has_moved():
    replies = iter("11")  # X takes square 1, then O names it again
    sampler = Sampler(lambda rng, limit: [ord(next(replies)), STOP])
    (group,) = play(player(Boards()), sampler, [SelfPlay("p")], 2, "key")
    told = {e.player: (e.reward, e.metrics["illegal"]) for e in group.episodes}
    assert told == {"X": (1, 0), "O": (-1, 1)}


def test_a_fine_is_paid_for_an_illegal_move_and_goes_to_nobody():
    replies = iter("11")
    sampler = Sampler(lambda rng, limit: [ord(next(replies)), STOP])
    (group,) = play(player(Boards()), sampler, [SelfPlay("p", fine=0.5)], 2, "key")
    assert {e.player: e.reward for e in group.episodes} == {"X": 1, "O": -1.5}
    groups = play(player(Boards()), Mover(), self_play_problems(6, seed=0, fine=0.5), 8, "key")
    assert {e.reward for group in groups for e in group.episodes} == {-1, 0, 1}


def test_an_odd_group_is_refused():
    (group,) = play(player(Boards()), Mover(), [SelfPlay("p")], 3, "key")
    assert group.failures == ["error: ConfigError: group_size = 3: self-play needs an even one, "
                              "two to a game"] * 3  # fmt: skip


@pytest.mark.parametrize("program", [rules.random_player, rules.perfect_player])
def test_matches_against_programs(program):
    problems = match_problems(program, seed=3)
    assert [problem.tag for problem in problems] == ["X", "O"]
    groups = play(player(Boards()), Mover(), problems, 20, "key")
    episodes = [episode for group in groups for episode in group.episodes]
    assert [e.player for e in episodes] == ["X"] * 20 + ["O"] * 20
    outcomes = Counter(episode.reward for episode in episodes)
    if program is rules.perfect_player:
        assert outcomes[1] == 0
        assert outcomes[-1] > 20
    else:
        assert min(outcomes[1], outcomes[-1]) >= 5
    again = play(player(Boards()), Mover(), problems, 20, "key")
    assert [e.reward for group in again for e in group.episodes] == [e.reward for e in episodes]


def test_positions_are_distinct_and_too_many_are_refused():
    problems = self_play_problems(60, seed=0)
    assert len({problem.name for problem in problems}) == 60
    with pytest.raises(ConfigError, match="2 positions are wanted, but 1 were found"):
        self_play_problems(2, seed=0, most_moves=0)


def test_two_players_play_a_game_out():
    rng = random.Random(0)
    perfect = program_player(rules.perfect_player, rng)
    for _ in range(20):
        game = asyncio.run(play_out(Game(), {"X": perfect, "O": perfect}))
        assert game.outcome("X") == game.outcome("O") == 0
        assert [board.count(".") for board in game.boards] == list(range(9, -1, -1))

    async def speak(messages):
        assert messages == [{"role": "user", "content": board_prompt(rules.EMPTY)}]
        return "I resign"

    game = asyncio.run(play_out(Game(), {"X": model_player(speak), "O": perfect}))
    assert (game.forfeited, game.outcome("X"), game.outcome("O")) == ("X", -1, 1)
