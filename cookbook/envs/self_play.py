"""Tic-tac-toe as environments: the policy against itself, or against another player.

Every turn is a fresh prompt with the board on it, since a board says all that matters; so every
move is a training row of its own. A reply that is no legal move forfeits the game.
"""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from cookbook.envs import tic_tac_toe as rules
from cookbook.errors import ConfigError
from cookbook.rl import Env, NoTurn, Problem, Reply, Step
from cookbook.rows import Message

BoardPlayer = Callable[[str], Awaitable[int | None]]
"""From a board to a square; None, or a square that is not free, forfeits."""
Program = Callable[[str, random.Random], int]
"""A player that is a program, such as `tic_tac_toe.random_player`."""


def board_prompt(board: str) -> str:
    """Return what the side to move reads: the board, and a line for each free square.

    The line says whose pair the square completes, if any, and then its number: "your pair" are two
    of the reader's marks in one line with it, "their pair" two of the other side's. A small model
    sees no lines in a row of letters, as little as we would. What it should do about them is not
    said.
    What all boards have in common comes first, so that servers compute it once.
    """
    side = rules.side_to_move(board)
    other = next(each for each in rules.SIDES if each != side)
    marks = [str(i) if mark == "." else mark for i, mark in enumerate(board, start=1)]
    rows = ["|".join(marks[i : i + 3]) for i in (0, 3, 6)]
    pairs = {
        "your pair": rules.completing(board, side),
        "their pair": rules.completing(board, other),
    }
    squares = [
        f"{', '.join(whose for whose, ends in pairs.items() if square in ends)} {square}".lstrip()
        for square in rules.legal_moves(board)
    ]
    opening = f"Tic-tac-toe. Reply with the number of a free square.\nYou are {side}."
    return "\n".join([opening, *rows, *squares])


def parse_move(text: str) -> int | None:
    """Return the square that a reply names: one digit and nothing else; None otherwise."""
    return int(text.strip()) if re.fullmatch(r"[1-9]", text.strip()) else None


@dataclass
class Game:
    """One game, shared by its two sides."""

    board: str = rules.EMPTY
    boards: list[str] = field(default_factory=list)
    """All boards of the game, from the first to the present one."""
    forfeited: str = ""
    """The side that made an illegal move."""
    moved: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self.boards = [self.board]

    @property
    def over(self) -> bool:
        """Whether nobody may move any more."""
        return bool(self.forfeited) or not rules.legal_moves(self.board)

    async def move(self, side: str, square: int | None) -> None:
        """Make a move and tell the other side."""
        async with self.moved:
            if square in rules.legal_moves(self.board):
                self.board = rules.play(self.board, square)
                self.boards.append(self.board)
            else:
                self.forfeited = side
            self.moved.notify_all()

    async def wait(self, side: str) -> None:
        """Return once it is this side's turn, or the game is over."""
        async with self.moved:
            await self.moved.wait_for(lambda: self.over or rules.side_to_move(self.board) == side)

    def outcome(self, side: str) -> int:
        """Return 1 for a win, 0 for a draw, -1 for a loss: the negative of the other side's."""
        won = rules.winner(self.board)
        if self.forfeited:
            won = next(other for other in rules.SIDES if other != self.forfeited)
        return 0 if not won else 1 if won == side else -1


class Side:
    """One side of a game, played by the policy."""

    def __init__(self, game: Game, player: str, fine: float = 0.0) -> None:
        self.game, self.player, self.fine = game, player, fine

    async def start(self) -> Sequence[Message]:
        """Wait for the first turn and return its board."""
        await self._others()
        if self.game.over:
            raise NoTurn  # the other side has forfeited with its first move
        return self._board()

    async def step(self, reply: Reply) -> Step:
        """Make the move and wait for the next turn, or for the end and its reward."""
        await self.game.move(self.player, parse_move(reply.text))
        await self._others()
        if not self.game.over:
            return Step(done=False, messages=self._board(), forget=True)
        outcome, illegal = self.game.outcome(self.player), self.game.forfeited == self.player
        metrics = {
            "win": float(outcome == 1),
            "draw": float(outcome == 0),
            "loss": float(outcome == -1),
            "illegal": float(illegal),
        }
        return Step(reward=outcome - self.fine * illegal, metrics=metrics)

    async def _others(self) -> None:
        """Let the other side have its turn."""
        await self.game.wait(self.player)

    def _board(self) -> list[Message]:
        return [{"role": "user", "content": board_prompt(self.game.board)}]


class Match(Side):
    """One side of a game against another player than the policy."""

    def __init__(self, game: Game, player: str, opponent: BoardPlayer) -> None:
        super().__init__(game, player)
        self.opponent = opponent

    async def _others(self) -> None:
        board = self.game.board
        if not self.game.over and (side := rules.side_to_move(board)) != self.player:
            await self.game.move(side, await self.opponent(board))


def _not_alone() -> NoReturn:
    raise ConfigError("games are made by make_envs, all of a group at once")


@dataclass(frozen=True)
class SelfPlay(Problem):
    """A position that the policy plays out against itself: G/2 games, an episode for each side."""

    make_env: Callable[[], Env] = _not_alone
    board: str = rules.EMPTY
    fine: float = 0.0
    """What an illegal move costs beyond the lost game; nobody gets it. A side that is lost anyway
    has no other reason to move legally."""

    def make_envs(self, size: int) -> Sequence[Env]:
        """Return both sides of `size` / 2 games.

        Raises:
            ConfigError: an odd size.
        """
        if size % 2:
            raise ConfigError(f"group_size = {size}: self-play needs an even one, two to a game")
        games = [Game(self.board) for _ in range(size // 2)]
        return [Side(game, player, self.fine) for game in games for player in rules.SIDES]


def self_play_problems(n: int, seed: int, most_moves: int = 4, fine: float = 0.0) -> list[Problem]:
    """Return `n` distinct positions to play out, after 0 to `most_moves` random moves.

    Args:
        n: how many.
        seed: of the random moves.
        most_moves: 0 to 8.
        fine: see `SelfPlay`.

    Raises:
        ConfigError: there are fewer.
    """
    rng = random.Random(f"self-play, seed {seed}")
    boards: dict[str, None] = {}
    for _ in range(100 * n):
        if len(boards) < n:
            boards[rules.random_position(rng.randint(0, most_moves), rng)] = None
    if len(boards) < n:
        raise ConfigError(
            f"{n} positions are wanted, but {len(boards)} were found with most_moves={most_moves}. "
            "Ask for fewer, or allow more moves."
        )
    return [SelfPlay(f"from {board}", board=board, fine=fine) for board in boards]


@dataclass(frozen=True)
class AgainstProgram(Problem):
    """Games from the empty board against a program, which draws the same lots every time."""

    make_env: Callable[[], Env] = _not_alone
    program: Program = rules.random_player
    side: str = rules.SIDES[0]
    """The policy's."""
    seed: int = 0
    """Of the program's choices."""

    def make_envs(self, size: int) -> Sequence[Env]:
        """Return `size` games; the program's choices differ between them."""
        rngs = [random.Random(f"{self.name}, game {i}, seed {self.seed}") for i in range(size)]
        return [Match(Game(), self.side, program_player(self.program, rng)) for rng in rngs]


def match_problems(program: Program, seed: int) -> list[Problem]:
    """Return two problems: games against a program with the policy as X, and as O.

    The games of a problem are a group, so that equal boards are one request.
    """
    return [
        AgainstProgram(
            f"{side} against {program.__name__}", tag=side, program=program, side=side, seed=seed
        )
        for side in rules.SIDES
    ]


def program_player(program: Program, rng: random.Random) -> BoardPlayer:
    """Return a program as a player to be awaited."""

    async def choose(board: str) -> int:
        return program(board, rng)

    return choose


def model_player(answer: Callable[[Sequence[Message]], Awaitable[str]]) -> BoardPlayer:
    """Return a model as a player; `answer` gives its text, as `rl.FrozenModel` does."""

    async def choose(board: str) -> int | None:
        return parse_move(await answer([{"role": "user", "content": board_prompt(board)}]))

    return choose


async def play_out(game: Game, players: Mapping[str, BoardPlayer]) -> Game:
    """Return the game, played to its end by the players of "X" and "O"."""
    while not game.over:
        side = rules.side_to_move(game.board)
        await game.move(side, await players[side](game.board))
    return game
