"""The words of the field: one table, of which docs/glossary.md is made.

The notebooks that a newcomer reads first link each word to that page where it first appears; a test
finds the words by their forms and looks for the link.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """One word of the field."""

    name: str
    """The heading in the glossary."""
    meaning: str
    """One to three sentences, in words that are plain or in this table."""
    forms: tuple[str, ...] = ()
    """How it is written in a text besides its name: regular expressions, whatever the case."""

    @property
    def anchor(self) -> str:
        """The fragment of its heading, as code hosts and MyST make it."""
        return re.sub(r"[^\w -]", "", self.name.lower()).replace(" ", "-")

    @property
    def pattern(self) -> re.Pattern[str]:
        """Finds the word in a text, as a whole word."""
        forms = "|".join((re.escape(self.name), *self.forms))
        return re.compile(rf"(?<![\w-])(?:{forms})(?![\w-])", re.IGNORECASE)


# A table, so its rows stay rows.
# fmt: off
TERMS = (
    Term(
        "adapter",
        "A small set of extra weights beside those of a base model. Only they are trained, so that "
        "a fine-tuned model is a file of a few megabytes. Ours are LoRA adapters: to a matrix of "
        "the model they add the product of two thin ones, which is zero before training.",
        ("adapters", "LoRA"),
    ),
    Term(
        "Adam",
        "The usual optimiser. It moves each weight by about one learning rate a step, in the "
        "direction in which the gradient has lately pointed, whatever the gradient's size.",
    ),
    Term(
        "advantage",
        "How much better an answer was than what was to be expected, here: than the mean of the "
        "model's other answers to the same question. Above 0 the answer becomes likelier, below 0 "
        "less likely, at 0 nothing is learned from it.",
        ("advantages",),
    ),
    Term(
        "base model",
        "The model that training starts from, unchanged throughout; an adapter goes on top.",
        ("base models",),
    ),
    Term(
        "batch",
        "The examples that one step learns from together. A larger one gives a steadier gradient "
        "and costs more.",
        ("batches",),
    ),
    Term(
        "checkpoint",
        "What is saved to go on from later: the weights, the optimiser's memory, and how many "
        "steps they have had. The server keeps it and gives a `tinker://` path.",
        ("checkpoints",),
    ),
    Term(
        "confidence interval",
        "A range around a measured value, made by a rule that covers the true value in 95 of 100 "
        "repetitions. Two values whose intervals overlap may differ by luck alone. Wilson's is one "
        "for shares, sensible near 0 and 1 too.",
        ("intervals?", "Wilson", "95%"),
    ),
    Term(
        "datum",
        "One training example as the server takes it: input tokens, and for each position the "
        "target and the numbers that the loss needs, such as weights.",
        ("datums",),
    ),
    Term(
        "fine-tuning",
        "Training a finished language model a little further, on few examples or a narrow task.",
        ("fine-tunes?", "fine-tuned"),
    ),
    Term(
        "gradient",
        "For every trained weight, how the loss changes when the weight does. A step moves the "
        "weights against it.",
        ("gradients",),
    ),
    Term(
        "greedy",
        "Sampling at temperature 0: always the most probable token, so the answer is the same "
        "each time.",
    ),
    Term(
        "group",
        "Several answers to one and the same question, sampled independently, so that they can be "
        "compared with each other. A group whose answers all earn the same teaches nothing.",
        ("groups",),
    ),
    Term(
        "held out",
        "Never trained on. What a model does on held-out examples tells whether it has learned "
        "something or remembers them.",
        ("held-out", "hold out", "put aside", "set aside"),
    ),
    Term(
        "importance sampling",
        "Correcting for the fact that an answer was sampled by other weights than those being "
        "trained: each token counts by how much likelier it is now than it was then, "
        "exp(p − q).",
        ("importance_sampling",),
    ),
    Term(
        "KL",
        "Kullback-Leibler divergence: how far one distribution over tokens is from another, in "
        "nats; 0 if they are the same. Between sampler and trainer it should be near 0; between "
        "the trained model and the one it started from it tells how far training has gone.",
    ),
    Term(
        "learning rate",
        "The size of a step. Too small, and nothing happens; too large, and the model breaks.",
        ("learning rates", "step sizes?"),
    ),
    Term(
        "log-probability",
        "The natural logarithm of a probability, in nats: 0 for certain, −0.7 for one half, "
        "−4.6 for one in a hundred. Those of an answer's tokens add up to that of the answer.",
        ("log-probabilities", "logprobs?"),
    ),
    Term(
        "loss",
        "The number that training makes smaller. For examples to imitate it is their NLL; for "
        "rewards it is built so that rewarded answers become likelier.",
        ("losses",),
    ),
    Term(
        "loss weight",
        "How much a token counts in the loss. 1 for what the model shall learn to say, 0 for what "
        "it only reads. All of them together are called the mask.",
        ("loss weights", "mask", "masks", "masked"),
    ),
    Term(
        "nats",
        "The unit of information that goes with the natural logarithm; 1 nat is 1.44 bits.",
        ("nat",),
    ),
    Term(
        "NLL",
        "Negative log-likelihood: minus the log-probability of what should have been said, as a "
        "mean over tokens. It is the model's surprise: 0 if it was certain of every token; a fall "
        "by 1 makes the typical token 2.7 times as likely.",
        ("negative log-likelihood",),
    ),
    Term(
        "on-policy",
        "Trained on answers sampled from the weights as they are now. Off-policy: from older "
        "weights, or from another model.",
        ("off-policy",),
    ),
    Term(
        "optimiser",
        "The rule that turns gradients into new weights, here Adam. It remembers past gradients, "
        "which belong into a checkpoint.",
        ("optimizer",),
    ),
    Term(
        "policy",
        "What reinforcement learning calls the model in training: a rule that says how likely "
        "each answer to a question is.",
    ),
    Term(
        "post-training",
        "Everything that is done to a language model after it has learned to predict text: "
        "imitating good answers, learning from rewards or from comparisons.",
    ),
    Term(
        "prompt",
        "The tokens that a model is given before it begins to answer.",
        ("prompts",),
    ),
    Term(
        "rank",
        "The width of an adapter's thin matrices, and so its size: how much it can learn.",
    ),
    Term(
        "reinforcement learning",
        "Learning from rewards: the model answers, each answer is scored, and answers that scored "
        "better than others become likelier. Nobody shows it what to say.",
    ),
    Term(
        "renderer",
        "What writes a conversation as tokens in the layout that a model was trained with, and "
        "reads an answer back.",
        ("renderers", "render", "rendered", "rendering", "chat format"),
    ),
    Term(
        "reward",
        "The score of an answer, given by a program, by another model or by people; here often 1 "
        "for right and 0 for wrong.",
        ("rewards", "rewarded"),
    ),
    Term(
        "sampling",
        "Letting the model write: it gives every possible next token a probability, one is drawn, "
        "and so on, token by token.",
        ("samples?", "sampled", "sampler"),
    ),
    Term(
        "step",
        "One update of the weights: a batch, its gradient, and the optimiser's move.",
        ("steps", "weight updates?"),
    ),
    Term(
        "stop token",
        "The token by which a model ends its turn. A model that was never trained on it does not "
        "stop.",
        ("stop tokens", "end token", "token that ends it", "ended its turn"),
    ),
    Term(
        "supervised learning",
        "Learning from examples of what should have been said.",
        ("supervised", "supervised training", "supervised fine-tuning"),
    ),
    Term(
        "temperature",
        "A dial of sampling. 1 draws by the model's own probabilities, lower ones favour the "
        "probable tokens, 0 takes the most probable one always.",
    ),
    Term(
        "token",
        "The unit in which a model reads and writes: a word, a piece of one, or a sign; a number "
        "to the model. Three English words take about four tokens. A tokenizer turns text into "
        "tokens and back.",
        ("tokens", "tokenizer"),
    ),
    Term(
        "weights",
        "The numbers that a model consists of, 135 million in the bundled one. Training changes "
        "them, or those of an adapter beside them.",
        ("parameters of the model", "million parameters"),
    ),
)
# fmt: on

PAGE = """# Words

Every word of the field that the first notebooks use:
[start_here](../notebooks/start_here.ipynb), [sl_loop](../notebooks/sl_loop.ipynb) and
[rl_loop](../notebooks/rl_loop.ipynb) link here where a word first appears. What a run logs has a
[page of its own](metrics.md).

This page is written by `python -m cookbook.notebooks.terms` from the table in
`cookbook/notebooks/terms.py`; a test keeps it current.
"""


def glossary_page() -> str:
    """Return the text of docs/glossary.md: the words by alphabet, a heading each."""
    ordered = sorted(TERMS, key=lambda term: term.name.lower())
    return "\n".join([PAGE, *(f"## {term.name}\n\n{term.meaning}\n" for term in ordered)])


def prose(markdown: str) -> str:
    """Return a markdown text with all that is no running text blanked out, of the same length.

    That is code, formulas, tags, targets of links, headings, and the status line.
    """
    blank = (
        r"```.*?```", r"`[^`\n]*`", r"\$\$.*?\$\$", r"\$[^$\n]+\$", r"<[^>]+>",
        r"(?<=\]\()[^)]*(?=\))", r"^#+ [^\n]*", r"^≈ [^\n]*",
    )  # fmt: skip
    hidden = re.compile("|".join(blank), re.DOTALL | re.MULTILINE)
    return hidden.sub(lambda found: " " * len(found.group()), markdown)


def unlinked_terms(markdown: str) -> list[str]:
    """Return the words that the text uses without a link to the glossary at their first use."""
    text, unlinked = prose(markdown), []
    for term in TERMS:
        first = term.pattern.search(text)
        if first is None:
            continue
        link = re.compile(rf"[^\[\]]*\]\([^)]*glossary\.md#{re.escape(term.anchor)}\)")
        if not link.match(markdown, first.end()) or "[" not in _line_before(markdown, first):
            unlinked.append(term.name)
    return unlinked


def _line_before(markdown: str, found: re.Match[str]) -> str:
    """Return what stands between the last closed link and a match."""
    return markdown[markdown.rfind("]", 0, found.start()) + 1 : found.start() + 1]


if __name__ == "__main__":
    from pathlib import Path

    target = Path(__file__).resolve().parents[2] / "docs" / "glossary.md"
    target.write_text(glossary_page(), encoding="utf-8")
