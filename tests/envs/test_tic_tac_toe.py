"""The rules, on every position that a game can reach."""

import random
from collections import Counter

import pytest

from cookbook.envs.tic_tac_toe import (
    EMPTY,
    LINES,
    SIDES,
    best_moves,
    completing,
    legal_moves,
    perfect_player,
    play,
    positions,
    random_player,
    random_position,
    side_to_move,
    value,
    winner,
)
from cookbook.errors import ConfigError

ALL = list(positions())
OTHER = {"X": "O", "O": "X"}


def lines_of(board: str, side: str) -> int:
    return sum(all(board[square - 1] == side for square in line) for line in LINES)


def test_the_known_numbers_of_positions_and_endings():
    """Source: the counts that every complete enumeration of the game gives."""
    assert len(ALL) == len(set(ALL)) == 5478
    assert Counter(winner(board) for board in ALL) == {"X": 626, "O": 316, "": 4536}
    full = [board for board in ALL if "." not in board and not winner(board)]
    assert len(full) == 16
    assert sum(not legal_moves(board) for board in ALL) == 626 + 316 + 16


def test_completing_squares_are_those_that_would_win():
    for board in ALL:
        mover = side_to_move(board)
        wins = [square for square in legal_moves(board) if winner(play(board, square))]
        assert completing(board, mover) == wins
        for side in SIDES:
            free = legal_moves(board)
            put = {square: board[: square - 1] + side + board[square:] for square in free}
            assert completing(board, side) == [s for s in free if lines_of(put[s], side)]


def test_the_known_number_of_games():
    def games(board):
        moves = legal_moves(board)
        if not moves:
            return Counter([winner(board)])
        return sum((games(play(board, move)) for move in moves), Counter())

    assert games(EMPTY) == {"X": 131184, "O": 77904, "": 46080}


def test_every_position_is_consistent():
    for board in ALL:
        assert len(board) == 9
        assert set(board) <= {"X", "O", "."}
        ahead = board.count("X") - board.count("O")
        assert ahead in (0, 1)
        won = winner(board)
        assert won == "".join(side for side in SIDES if lines_of(board, side))
        if won:
            assert side_to_move(board) == OTHER[won] or "." not in board
            assert legal_moves(board) == []
        else:
            free = [square for square in range(1, 10) if board[square - 1] == "."]
            assert legal_moves(board) == free


def test_every_move_of_every_position():
    for board in ALL:
        side = side_to_move(board) if "." in board else ""
        for square in range(0, 11):
            if square in legal_moves(board):
                after = play(board, square)
                changed = [i + 1 for i in range(9) if after[i] != board[i]]
                assert changed == [square]
                assert after[square - 1] == side
            else:
                with pytest.raises(ConfigError, match=f"square {square} on board"):
                    play(board, square)


def test_the_value_of_every_position_is_that_of_plain_negamax():
    found: dict[str, int] = {}
    for board in sorted(ALL, key=lambda board: board.count(".")):
        won = winner(board)
        if won:
            found[board] = 1 if won == side_to_move(board) and "." in board else -1
        else:
            after = [-found[play(board, square)] for square in legal_moves(board)]
            found[board] = max(after, default=0)
        assert value(board) == found[board]
    assert found[EMPTY] == 0


def test_best_moves_keep_the_value_and_others_lose_it():
    for board in ALL:
        best = best_moves(board)
        assert bool(best) == bool(legal_moves(board))
        for square in legal_moves(board):
            assert (-value(play(board, square)) == value(board)) == (square in best)


def can_lose(board: str, side: str) -> bool:
    """Whether the perfect player may lose as `side`, whatever the other one does."""
    seen, left = set(), [board]
    while left:
        board = left.pop()
        if winner(board) == OTHER[side]:
            return True
        mine = side_to_move(board) == side if "." in board else False
        moves = best_moves(board) if mine else legal_moves(board)
        left += {play(board, square) for square in moves} - seen
        seen |= set(left)
    return False


@pytest.mark.parametrize("side", SIDES)
def test_the_perfect_player_never_loses(side):
    assert not can_lose(EMPTY, side)


def test_players_make_legal_moves_and_use_them_all():
    rng = random.Random(0)
    board = "X.O.X...."
    made = Counter(random_player(board, rng) for _ in range(3000))
    assert set(made) == set(legal_moves(board))
    assert min(made.values()) > 400
    assert {perfect_player(board, rng) for _ in range(100)} == set(best_moves(board)) == {9}


@pytest.mark.parametrize("n_moves", range(9))
def test_random_positions_are_unfinished_and_reachable(n_moves):
    rng = random.Random(n_moves)
    for _ in range(20):
        board = random_position(n_moves, rng)
        assert board in ALL
        assert board.count(".") == 9 - n_moves
        assert legal_moves(board)
