"""Which language a sentence is in: everyday sentences in five languages, from parts.

A sentence is someone, something done, and a place or time. Training and held-out sentences share no
part, so that what carries over is the language and not a phrase.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from cookbook.envs.problems import check_sizes
from cookbook.errors import ConfigError
from cookbook.rl import Grade, Problem, QuestionEnv, Task
from cookbook.rows import Message

# fmt: off
PARTS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "English": (
        ["My sister", "The old farmer", "Our neighbour", "The children", "A young doctor",
         "The teacher", "Her uncle", "The tired driver", "My best friend", "The two girls"],
        ["wrote a long letter", "found a small key", "made the soup", "heard the rain",
         "bought fresh bread", "lost the train ticket", "opened the blue window",
         "told a strange story", "sold the white horse", "forgot the black umbrella"],
        ["in the kitchen", "before dinner", "near the river", "on Monday", "after school",
         "at the station", "this morning", "behind the house", "without a word", "in the winter"],
    ),
    "German": (
        ["Meine Schwester", "Der alte Bauer", "Unser Nachbar", "Das kleine Kind",
         "Eine junge Ärztin", "Der Lehrer", "Ihr Onkel", "Der müde Fahrer", "Mein bester Freund",
         "Das fremde Mädchen"],
        ["schrieb einen langen Brief", "fand einen kleinen Schlüssel", "kochte die Suppe",
         "hörte den Regen", "kaufte frisches Brot", "verlor die Fahrkarte",
         "öffnete das blaue Fenster", "erzählte eine seltsame Geschichte",
         "verkaufte das weiße Pferd", "vergaß den schwarzen Regenschirm"],
        ["in der Küche", "vor dem Abendessen", "nahe am Fluss", "am Montag", "nach der Schule",
         "auf dem Bahnhof", "heute Morgen", "hinter dem Haus", "ohne ein Wort", "im Winter"],
    ),
    "French": (
        ["Ma sœur", "Le vieux fermier", "Notre voisin", "Le petit enfant", "Une jeune médecin",
         "Le professeur", "Son oncle", "Le conducteur fatigué", "Mon meilleur ami",
         "La jeune fille"],
        ["a écrit une longue lettre", "a trouvé une petite clé", "a préparé la soupe",
         "a entendu la pluie", "a acheté du pain frais", "a perdu le billet de train",
         "a ouvert la fenêtre bleue", "a raconté une histoire étrange",
         "a vendu le cheval blanc", "a oublié le parapluie noir"],
        ["dans la cuisine", "avant le dîner", "près de la rivière", "lundi dernier",
         "après l'école", "à la gare", "ce matin", "derrière la maison", "sans un mot",
         "pendant l'hiver"],
    ),
    "Spanish": (
        ["Mi hermana", "El viejo granjero", "Nuestro vecino", "El niño pequeño", "Una joven médica",
         "El profesor", "Su tío", "El conductor cansado", "Mi mejor amigo", "La muchacha"],
        ["escribió una carta larga", "encontró una llave pequeña", "preparó la sopa",
         "oyó la lluvia", "compró pan fresco", "perdió el billete de tren",
         "abrió la ventana azul", "contó una historia extraña", "vendió el caballo blanco",
         "olvidó el paraguas negro"],
        ["en la cocina", "antes de la cena", "cerca del río", "el lunes", "después de la escuela",
         "en la estación", "esta mañana", "detrás de la casa", "sin una palabra",
         "durante el invierno"],
    ),
    "Italian": (
        ["Mia sorella", "Il vecchio contadino", "Il nostro vicino", "Il bambino piccolo",
         "Una giovane dottoressa", "Il maestro", "Suo zio", "L'autista stanco",
         "Il mio migliore amico", "La ragazza"],
        ["ha scritto una lunga lettera", "ha trovato una piccola chiave", "ha preparato la zuppa",
         "ha sentito la pioggia", "ha comprato il pane fresco", "ha perso il biglietto del treno",
         "ha aperto la finestra azzurra", "ha raccontato una storia strana",
         "ha venduto il cavallo bianco", "ha dimenticato l'ombrello nero"],
        ["in cucina", "prima di cena", "vicino al fiume", "lunedì scorso", "dopo la scuola",
         "alla stazione", "questa mattina", "dietro la casa", "senza una parola",
         "durante l'inverno"],
    ),
}
# fmt: on
LANGUAGES = tuple(PARTS)

TRAIN_PARTS = 6
"""Of the ten of each kind; the others are for held-out sentences."""


@dataclass(frozen=True)
class Sentence:
    """A sentence and its language."""

    text: str
    language: str
    """One of `LANGUAGES`."""


def sentences(n: int, seed: int, held_out: bool = False) -> list[Sentence]:
    """Return distinct sentences, equally many of each language as far as n allows, shuffled.

    Args:
        n: how many; up to 1,080 for training and 320 held out.
        seed: decides which, and their order.
        held_out: made of the parts that no training sentence has.
    Raises:
        ConfigError: more than there are, or fewer than 0.
    """
    kept = range(TRAIN_PARTS, 10) if held_out else range(TRAIN_PARTS)
    most = len(kept) ** 3
    if not 0 <= n <= len(LANGUAGES) * most:
        raise ConfigError(
            f"n is {n}; there are {len(LANGUAGES) * most} such sentences, ask for at most so many."
        )
    rng = random.Random(f"sentences, seed {seed}, held out {held_out}")
    first = rng.sample(LANGUAGES, len(LANGUAGES))
    shares = {name: n // len(LANGUAGES) + (i < n % len(LANGUAGES)) for i, name in enumerate(first)}
    found = [
        Sentence(" ".join(part[i] for part, i in zip(PARTS[name], places, strict=True)) + ".", name)
        for name, share in shares.items()
        for places in _places(kept, share, rng)
    ]
    return rng.sample(found, n)


def language_task(*, n_train: int, n_test: int, seed: int, context: Sequence[Message] = ()) -> Task:
    """Return sentences whose language is to be named, in one word and nothing else.

    Args:
        n_train: sentences to train on.
        n_test: others, made of other parts.
        seed: decides which, and their order.
        context: messages before each sentence that say what to do: without it nothing does.
    Raises:
        ConfigError: more sentences than there are.
    """
    check_sizes(n_train, n_test)
    problem = partial(_problem, context)
    train, test = sentences(n_train, seed), sentences(n_test, seed, held_out=True)
    return Task("languages", train=[*map(problem, train)], test=[*map(problem, test)])


def read_language(answer: str) -> str | None:
    """Return the language that an answer names; None if it is not the name alone."""
    said = answer.strip().rstrip(".").capitalize()
    return said if said in LANGUAGES else None


def grade_language(language: str, answer: str) -> Grade:
    """Return whether the answer names this language, and whether it names any."""
    said = read_language(answer)
    return Grade(correct=said == language, well_formed=said is not None)


def _places(kept: range, n: int, rng: random.Random) -> list[tuple[int, ...]]:
    """Return n distinct triples of parts' numbers."""
    most = len(kept)
    codes = rng.sample(range(most**3), n)
    return [(kept[c // most**2], kept[c // most % most], kept[c % most]) for c in codes]


def _problem(context: Sequence[Message], sentence: Sentence) -> Problem:
    messages = [*context, {"role": "user", "content": sentence.text}]
    grade = partial(grade_language, sentence.language)
    make_env = partial(QuestionEnv, messages=messages, grade=grade)
    return Problem(sentence.text, make_env, tag="languages")
