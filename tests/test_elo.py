import random
import re

import pytest

from cookbook.analysis import GameResult, board_figure, elo_ratings, game_view
from cookbook.errors import DataError


def games(first, second, wins, draws, losses):
    scores = [1.0] * wins + [0.5] * draws + [0.0] * losses
    return [GameResult(first, second, score) for score in scores]


def points(results, reference):
    return {rating.player: rating.points for rating in elo_ratings(results, reference)}


def test_odds_of_ten_to_one_are_400_points():
    found = points(games("a", "b", 10_000, 0, 1_000), "b")
    assert found["b"] == 0
    assert found["a"] == pytest.approx(400, abs=1)


def test_even_players_are_equal_and_a_draw_is_half_a_win():
    assert points(games("a", "b", 5, 0, 5), "b")["a"] == pytest.approx(0, abs=1e-6)
    assert points(games("a", "b", 0, 9, 0), "b")["a"] == pytest.approx(0, abs=1e-6)
    half = points(games("a", "b", 500, 200, 300), "b")["a"]
    assert half == pytest.approx(points(games("a", "b", 600, 0, 400), "b")["a"])


def test_known_strengths_are_found_again_within_their_intervals():
    true = {"weak": -200.0, "middle": 0.0, "strong": 150.0}
    rng = random.Random(0)
    results = []
    for one in true:
        for other in true:
            if one < other:
                chance = 1 / (1 + 10 ** ((true[other] - true[one]) / 400))
                scores = [float(rng.random() < chance) for _ in range(2000)]
                results += [GameResult(one, other, score) for score in scores]
    ratings = elo_ratings(results, "middle")
    assert [rating.player for rating in ratings] == ["strong", "middle", "weak"]
    for rating in ratings:
        assert rating.points == pytest.approx(true[rating.player], abs=30)
        assert rating.low <= rating.points <= rating.high


def test_who_loses_every_game_has_a_finite_rating():
    found = points(games("a", "b", 0, 0, 20), "b")
    assert -1500 < found["a"] < -400


def test_the_order_of_the_names_does_not_matter():
    turned = [GameResult(g.second, g.first, 1 - g.score) for g in games("a", "b", 7, 2, 1)]
    assert points(turned, "b") == pytest.approx(points(games("a", "b", 7, 2, 1), "b"))


def test_bad_games_are_refused():
    with pytest.raises(DataError, match="no game of 'c'"):
        elo_ratings(games("a", "b", 1, 0, 0), "c")
    with pytest.raises(DataError, match="a score is 1 for a win"):
        elo_ratings([GameResult("a", "b", 3.0)], "a")


def test_a_game_is_drawn_board_by_board():
    boards = ["." * 9, "X........", "X...O....", "XX..O....", "XXO.O....", "XXO.O.X.."]
    figure = board_figure(boards, "A game")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["start", *(f"move {n}" for n in range(1, 6)), *[""] * 4]
    marks = ["".join(text.get_text() for text in axes.texts) for axes in figure.axes]
    assert marks == ["", "X", "XO", "XXO", "XXOO", "XXOOX", "", "", "", ""]
    with pytest.raises(DataError, match="0 boards"):
        board_figure([], "none")


GAME = ["." * 9, "X........", "X...O....", "X...O...X"]


def test_a_game_is_stepped_through_without_scripts():
    view = game_view(GAME, "A <game>", notes=["", "the centre", "a & b"])
    html = view._repr_html_()
    assert html.count("<details") == html.count("</table>") == len(GAME)
    assert "<script" not in html
    assert "A &lt;game&gt;" in html
    told = re.findall(r"<summary>(.*?)</summary>", html)
    assert told == ["Start", "1. X takes 1", "2. O takes 5: the centre", "3. X takes 9: a &amp; b"]
    drawn = [
        re.sub(r"<[^>]*>", "", table).replace("&nbsp;", ".")
        for table in re.findall(r"<table.*?</table>", html)
    ]
    assert drawn == GAME
    assert re.findall(r"<b>([XO])</b>", html) == ["X", "O", "X"]


def test_one_board_of_a_game_is_open_at_a_time():
    one, other = (game_view(GAME, title)._repr_html_() for title in "ab")
    names = [set(re.findall(r'name="([^"]+)"', html)) for html in (one, other)]
    assert [len(each) for each in names] == [1, 1]
    assert names[0] != names[1]
    assert re.findall(r"<details[^>]* open>", one) == re.findall(r"<details[^>]*>", one)[-1:]


def test_a_game_as_text():
    assert repr(game_view(GAME[:2], "A game")).splitlines() == [
        "A game", "Start", *["    . . ."] * 3, "1. X takes 1", "    X . .", *["    . . ."] * 2,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("boards", "notes", "message"),
    [
        ([], (), "0 boards"),
        (GAME[::2], (), "is not one move after"),
        ([*GAME, GAME[-1]], (), "is not one move after"),
        (["X........", "O........"], (), "is not one move after"),
        (GAME, ["one"], "1 notes for 3 moves"),
    ],
)
def test_what_is_no_game_is_not_shown(boards, notes, message):
    with pytest.raises(DataError, match=message):
        game_view(boards, "none", notes)
