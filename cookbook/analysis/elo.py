"""Elo ratings of players from the games between them."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from cookbook.errors import DataError

POINTS = 400 / math.log(10)
"""Elo points in a natural unit of strength: 400 points are odds of 10 to 1."""
N_RESAMPLES = 200


@dataclass(frozen=True)
class GameResult:
    """One game: who played, and what the first of them got, 1, 0.5 for a draw, or 0."""

    first: str
    second: str
    score: float


@dataclass(frozen=True)
class Rating:
    """A player's rating with its 95% interval, both relative to the reference player's."""

    player: str
    points: float
    low: float
    high: float


def elo_ratings(results: Sequence[GameResult], reference: str, seed: int = 0) -> list[Rating]:
    """Return the players' ratings, the best first; the reference player has 0.

    Formula: the chance that i beats j is 1 / (1 + 10^((e_j - e_i) / 400)), a draw counts as half a
    win; the ratings are the most likely ones given all games at once, with one drawn game of every
    player against an average one added, so that who lost every game has a finite rating.
    Intervals: percentiles of 200 resamples of the games (bootstrap).
    Source: Bradley and Terry 1952, Biometrika 39:324; fitted as in Hunter 2004, Annals of
    Statistics 32:384. *Left out*: the advantage of moving first; let both sides move first.

    Args:
        results: all games.
        reference: the player whose rating is 0.
        seed: of the resamples.
    Raises:
        DataError: no game of the reference player, or a score that is none.
    """
    players = sorted({player for game in results for player in (game.first, game.second)})
    if reference not in players:
        raise DataError(f"no game of {reference!r}, the reference; players: {', '.join(players)}")
    if bad := [game for game in results if not 0 <= game.score <= 1]:
        raise DataError(f"{bad[0]}: a score is 1 for a win, 0.5 for a draw, 0 for a loss")
    rng = random.Random(f"elo, seed {seed}")
    best = _fitted(results, players, reference)
    resampled = [
        _fitted(rng.choices(results, k=len(results)), players, reference)
        for _ in range(N_RESAMPLES)
    ]
    ratings = []
    for player in players:
        values = sorted(sample[player] for sample in resampled)
        low, high = values[round(0.025 * N_RESAMPLES)], values[round(0.975 * N_RESAMPLES) - 1]
        ratings.append(Rating(player, best[player], low, high))
    return sorted(ratings, key=lambda rating: -rating.points)


def _fitted(
    results: Sequence[GameResult], players: Sequence[str], reference: str
) -> dict[str, float]:
    """Return the most likely ratings, by the minorise-maximise steps of Hunter 2004."""
    wins = dict.fromkeys(players, 0.5)
    games: dict[tuple[str, str], int] = {}
    for game in results:
        wins[game.first] += game.score
        wins[game.second] += 1 - game.score
        for pair in ((game.first, game.second), (game.second, game.first)):
            games[pair] = games.get(pair, 0) + 1
    strength = dict.fromkeys(players, 1.0)
    for _ in range(200):
        weight = {player: 1 / (strength[player] + 1) for player in players}
        for (one, other), n in games.items():
            weight[one] += n / (strength[one] + strength[other])
        strength = {player: wins[player] / weight[player] for player in players}
    zero = math.log(strength[reference])
    return {player: POINTS * (math.log(strength[player]) - zero) for player in players}
