"""The rules of tic-tac-toe, a perfect player and a random one. Pure: no model, no state.

A board is a text of nine letters, row by row: "X", "O", or "." for a free square. Squares have the
numbers 1 to 9. X moves first.
"""

import random
from collections.abc import Iterator
from functools import cache

from cookbook.errors import ConfigError

EMPTY = "." * 9
SIDES = ("X", "O")
LINES = (
    (1, 2, 3), (4, 5, 6), (7, 8, 9),
    (1, 4, 7), (2, 5, 8), (3, 6, 9),
    (1, 5, 9), (3, 5, 7),
)  # fmt: skip


def winner(board: str) -> str:
    """Return the side that has a line, or an empty text."""
    for line in LINES:
        first, *others = (board[square - 1] for square in line)
        if first != "." and all(mark == first for mark in others):
            return first
    return ""


def legal_moves(board: str) -> list[int]:
    """Return the squares that may be taken; none once the game is over."""
    if winner(board):
        return []
    return [square for square in range(1, 10) if board[square - 1] == "."]


def side_to_move(board: str) -> str:
    """Return "X" or "O"."""
    return SIDES[board.count("X") - board.count("O")]


def play(board: str, square: int) -> str:
    """Return the board after the side to move has taken a square.

    Raises:
        ConfigError: the square is not free, there is none of that number, or the game is over.
    """
    allowed = legal_moves(board)
    if square not in allowed:
        raise ConfigError(f"square {square!r} on board {board!r}: allowed are {allowed}")
    return board[: square - 1] + side_to_move(board) + board[square:]


def completing(board: str, side: str) -> list[int]:
    """Return the free squares that would complete a line of this side, whoever is to move."""
    return [
        square
        for square in legal_moves(board)
        if winner(board[: square - 1] + side + board[square:]) == side
    ]


@cache
def value(board: str) -> int:
    """Return what the side to move gets if both play perfectly: 1 a win, 0 a draw, -1 a loss.

    Formula: minimax, v(board) = max over moves of -v(board after the move).
    """
    if winner(board):
        return -1  # the other side has just completed its line
    return max((-value(play(board, square)) for square in legal_moves(board)), default=0)


def best_moves(board: str) -> list[int]:
    """Return the moves that keep the value of the board."""
    return [square for square in legal_moves(board) if -value(play(board, square)) == value(board)]


def perfect_player(board: str, rng: random.Random) -> int:
    """Return one of the best moves."""
    return rng.choice(best_moves(board))


def random_player(board: str, rng: random.Random) -> int:
    """Return any legal move."""
    return rng.choice(legal_moves(board))


def positions() -> Iterator[str]:
    """Yield every board that can occur in a game, finished ones included: 5,478."""
    seen, left = {EMPTY}, [EMPTY]
    while left:
        board = left.pop()
        yield board
        after = {play(board, square) for square in legal_moves(board)} - seen
        seen |= after
        left += sorted(after)


def random_position(n_moves: int, rng: random.Random) -> str:
    """Return an unfinished board after so many random moves (0 to 8)."""
    while True:
        board = EMPTY
        for _ in range(n_moves):
            if moves := legal_moves(board):
                board = play(board, rng.choice(moves))
        if board.count(".") == 9 - n_moves and legal_moves(board):
            return board
