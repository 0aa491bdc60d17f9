import gzip
import itertools
import json
import re
from pathlib import Path

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookbook.data import (
    BUNDLED,
    PLAIN_FACTS,
    Batches,
    load_conversations,
    load_train_and_test,
    split_conversations,
)
from cookbook.errors import ConfigError, DataError
from cookbook.row_forms import prompt_and_answer
from cookbook.rows import read_rows

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "ä"}]


def write_jsonl(folder, *rows):
    path = folder / "rows.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def chats(n):
    return [[{"role": "user", "content": f"q{i}"}, *CHAT[1:]] for i in range(n)]


# ---- local files


def test_jsonl(tmp_path):
    path = write_jsonl(tmp_path, {"messages": CHAT, "id": 1}, "", {"messages": CHAT[:1]})
    assert load_conversations(path) == [CHAT, CHAT[:1]]


def test_jsonl_with_windows_line_ends_and_other_line_separators_in_text(tmp_path):
    chat = [{"role": "user", "content": "a\u2028b\u0085c"}]
    line = json.dumps({"messages": chat}, ensure_ascii=False).encode()
    (tmp_path / "rows.jsonl").write_bytes(line + b"\r\n" + line)
    assert load_conversations(str(tmp_path / "rows.jsonl")) == [chat, chat]


def test_prompt_and_completion(tmp_path):
    path = write_jsonl(tmp_path, {"prompt": "q", "completion": "ä"})
    assert load_conversations(path) == [CHAT]
    path = write_jsonl(tmp_path, {"question": "q", "answer": "ä"})
    mapper = prompt_and_answer("question", "answer")
    assert load_conversations(path, to_messages=mapper) == [CHAT]


def test_parquet(tmp_path):
    path = str(tmp_path / "rows.parquet")
    named = [{**CHAT[0], "name": "x"}, CHAT[1]]  # parquet fills the missing name with None
    datasets.Dataset.from_list([{"messages": named}]).to_parquet(path)
    assert load_conversations(path) == [named]


def test_json_and_packed_files_hold_the_same_rows(tmp_path):
    as_list, packed = tmp_path / "rows.json", tmp_path / "rows.jsonl.gz"
    as_list.write_text(json.dumps([GOOD, GOOD]))
    packed.write_bytes(gzip.compress("\n".join(map(json.dumps, [GOOD, GOOD])).encode()))
    assert load_conversations(str(as_list)) == load_conversations(str(packed)) == [CHAT, CHAT]
    packed_list = tmp_path / "rows.json.gz"
    packed_list.write_bytes(gzip.compress(as_list.read_bytes()))
    assert load_conversations(str(packed_list)) == [CHAT, CHAT]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b'{"messages": []}', r"a\.json: expected one list of rows, got dict"),
        ("a.json", b"[1, ", r"a\.json: no valid JSON \("),
        ("a.json", b"[1]", r"a\.json row 1: expected one JSON object, got int 1"),
        ("a.jsonl.gz", b"plain", r"a\.jsonl\.gz cannot be unpacked: "),
    ],
)
def test_files_that_are_not_what_their_name_says(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        load_conversations(str(tmp_path / name))


@pytest.mark.parametrize("given", ["", None])
def test_instructions_with_and_without_input(tmp_path, given):
    rows = [
        {"instruction": "Add.", "input": "2 and 3", "output": "5"},
        {"instruction": "Say hello.", "input": given, "output": "Hello"},
    ]
    told = load_conversations(write_jsonl(tmp_path, *rows))
    assert [[message["content"] for message in messages] for messages in told] == [
        ["Add.\n2 and 3", "5"],
        ["Say hello.", "Hello"],
    ]


def tree(text, *replies, role="prompter", rank=None):
    return {"role": role, "text": text, "rank": rank, "replies": list(replies)}


def test_a_tree_gives_its_best_thread_up_to_the_last_reply(tmp_path):
    best = tree("b", tree("thanks"), role="assistant", rank=0)
    root = tree("q", tree("a", role="assistant", rank=1), best, tree("c", role="assistant"))
    (messages,) = load_conversations(write_jsonl(tmp_path, {"prompt": root}))
    assert messages == [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    ("root", "words"),
    [
        (tree("q"), "field 'replies': expected at least one reply"),
        (tree("q", role="bot"), "field 'role': expected prompter or assistant, got str 'bot'"),
        ({"role": "prompter"}, "field 'text': it is missing"),
    ],
)
def test_a_tree_without_a_thread(tmp_path, root, words):
    with pytest.raises(DataError, match=f"line 1, {words}"):
        load_conversations(write_jsonl(tmp_path, {"prompt": root}))


def test_keeps_other_fields_of_a_message(tmp_path):
    chat = [{**CHAT[0], "trainable": False}, {**CHAT[1], "trainable": True}]
    assert load_conversations(write_jsonl(tmp_path, {"messages": chat})) == [chat]


GOOD = {"messages": CHAT}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (
            '{"messages": [',
            r"rows.jsonl line 2: expected one JSON object, got b'{\"messages\": \['",
        ),
        ("[1]", r"line 2: expected one JSON object, got list \[1\]"),
        ({"text": "x"}, r"line 2, field 'messages': it is missing, the row has \['text'\].*Rename"),
        (
            {"messages": "Hello"},
            r"line 2, field 'messages': expected a list .* got str 'Hello'. Wrap",
        ),
        ({"messages": []}, r"line 2, field 'messages': .*at least one message, got \[\]. Drop"),
        ({"messages": None}, r"line 2, field 'messages': expected a list .* got nothing"),
        ({"messages": ["hi"]}, r"line 2, field 'messages\[0\]': .*got str 'hi'"),
        (
            {"messages": [*CHAT, {"role": "bot", "content": ""}]},
            r"line 2, field 'messages\[2\].role': expected one of system, .*got str 'bot'",
        ),
        ({"messages": [{"content": "x"}]}, r"field 'messages\[0\].role': .*got nothing"),
        ({"messages": [{"role": "user"}]}, r"field 'messages\[0\].content': .*text, got nothing"),
        (
            {"messages": [{"role": "user", "content": 7}]},
            r"field 'messages\[0\].content': expected text, got int 7. Write it as a string",
        ),
        (
            {"messages": [{"role": "user", "content": "a\ud800"}]},
            r"field 'messages\[0\].content': .*'\\ud800' at character 1, half of a surrogate pair",
        ),
        ({"prompt": "x", "completion": 3}, r"line 2, field 'completion': expected text, got int 3"),
    ],
)
def test_bad_rows_name_file_line_and_field(tmp_path, bad, words):
    with pytest.raises(DataError, match=words):
        load_conversations(write_jsonl(tmp_path, GOOD, bad, GOOD))


def test_bytes_that_are_no_utf8(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"messages": "\xff"}\n')
    with pytest.raises(DataError, match=r"rows.jsonl line 1: .*xff"):
        load_conversations(str(tmp_path / "rows.jsonl"))


def test_bad_parquet_row_and_file(tmp_path):
    path = str(tmp_path / "rows.parquet")
    datasets.Dataset.from_list([GOOD, {"messages": None}]).to_parquet(path)
    with pytest.raises(DataError, match=r"rows.parquet row 2, field 'messages'"):
        load_conversations(path)
    Path(path).write_text("no parquet")
    with pytest.raises(DataError, match=r"rows.parquet is not a readable parquet file"):
        load_conversations(path)


def test_a_mapper_names_the_missing_field(tmp_path):
    path = write_jsonl(tmp_path, {"question": "q", "reply": "a"})
    with pytest.raises(
        DataError, match=r"line 1, field 'answer'.*the row has \['question', 'reply'"
    ):
        load_conversations(path, to_messages=prompt_and_answer("question", "answer"))


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(DataError, match=r"There is no file .*none.jsonl"):
        load_conversations(str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="holds no conversations"):
        load_conversations(write_jsonl(tmp_path, ""))


@pytest.mark.parametrize("source", ["pocket_tuto", "data.csv", "a/b/c", "./x", ""])
def test_unknown_sources(source):
    with pytest.raises(ConfigError, match=r"is unknown. Allowed: 'pocket_tutor', the path"):
        load_conversations(source)


def test_local_sets_have_no_other_split(tmp_path):
    with pytest.raises(ConfigError, match=r"has no split 'test'.*split_conversations"):
        load_conversations(write_jsonl(tmp_path, GOOD), "test")


# ---- sets on the hub: made-up rows in their columns


@pytest.fixture
def hub(monkeypatch):
    """Serve `hub[(id, split)] = rows` in place of the hub."""
    served = {}

    def load_dataset(source, split):
        if (source, split) not in served:
            raise ValueError(f'Unknown split "{split}".\nmore')
        return datasets.Dataset.from_list(served[source, split])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return served


def test_no_robots(hub):
    row = {"prompt": "q", "prompt_id": "1", "messages": CHAT, "category": "Chat"}
    hub["HuggingFaceH4/no_robots", "train"] = [row] * 3
    hub["HuggingFaceH4/no_robots", "test"] = [row, {**row, "messages": CHAT[:1]}]
    assert load_conversations("HuggingFaceH4/no_robots") == [CHAT] * 3
    assert load_conversations("HuggingFaceH4/no_robots", "test") == [CHAT, CHAT[:1]]
    train, test = load_train_and_test("HuggingFaceH4/no_robots", n_test=1, seed=0)
    assert (len(train), test) == (3, [CHAT])
    assert load_train_and_test("HuggingFaceH4/no_robots", n_test=0, seed=0)[1] == []


def test_tulu_3_holds_out_the_first_1024_rows_after_a_shuffle(hub):
    rows = [{"id": str(i), "messages": c, "source": "s"} for i, c in enumerate(chats(1100))]
    hub["allenai/tulu-3-sft-mixture", "train"] = rows
    test = load_conversations("allenai/tulu-3-sft-mixture", "test")
    train = load_conversations("allenai/tulu-3-sft-mixture")
    expected = datasets.Dataset.from_list(rows).shuffle(seed=0)["messages"]
    assert test == list(expected)[:1024]
    assert train == list(expected)[1024:]


@pytest.mark.parametrize(
    ("source", "columns"),
    [
        (
            "simplescaling/s1K-1.1",
            {"deepseek_thinking_trajectory": "\nso 5 ", "deepseek_attempt": "It is 5.\n"},
        ),
        (
            "simplescaling/s1K",
            {"thinking_trajectories": ["so 5", "other"], "attempt": "It is 5."},
        ),
    ],
)
def test_s1k(hub, source, columns):
    hub[source, "train"] = [{"question": "2 + 3?", "solution": "5", "cot_type": "math", **columns}]
    assert load_conversations(source) == [
        [
            {"role": "user", "content": "2 + 3?"},
            {"role": "assistant", "content": "<think>\nso 5\n</think>\n\nIt is 5."},
        ]
    ]


def test_s1k_row_without_reasoning(hub):
    hub["simplescaling/s1K", "train"] = [
        {"question": "q", "thinking_trajectories": [], "attempt": ""}
    ]
    with pytest.raises(
        DataError, match=r"s1K train row 1, field 'thinking_trajectories'.*list \[\]"
    ):
        load_conversations("simplescaling/s1K")


def test_other_hub_sets_and_their_bad_rows(hub):
    hub["me/set", "validation"] = [GOOD, {"messages": CHAT, "x": 1}]
    assert load_conversations("me/set", "validation") == [CHAT, CHAT]
    hub["me/set", "train"] = [{"text": "x"}]
    with pytest.raises(DataError, match=r"me/set train row 1, field 'messages'"):
        load_conversations("me/set")
    with pytest.raises(DataError, match=r"'me/set', split 'odd', from the hub \(Unknown split"):
        load_conversations("me/set", "odd")


def test_without_a_network(monkeypatch):
    def load_dataset(source, split):
        raise ConnectionError("Couldn't reach 'a/b' on the Hub (LocalEntryNotFoundError)")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        DataError, match=r"Cannot load 'a/b'.*Without a network use 'pocket_tutor'"
    ) as e:
        load_conversations("a/b")
    assert "\n" not in str(e.value)


# ---- the bundled set

THREE_LINES = re.compile(r"In short: [A-Z0-9].*\.\nBecause: .*\.\nTry it: .*\.")


def test_bundled_set():
    folder = Path(__file__).parents[1] / "cookbook" / "data"
    rows = [row for _, row in read_rows(folder / f"{BUNDLED}.jsonl")]
    assert len(rows) >= 300
    assert len({row["id"] for row in rows}) == len(rows)
    questions = [row["messages"][-2]["content"].strip().lower() for row in rows]
    assert len(set(questions)) == len(rows)
    assert all(set(row) == {"id", "topic", "messages"} and row["topic"] for row in rows)


def test_bundled_conversations_have_the_promised_form():
    conversations = load_conversations(BUNDLED)
    for messages in conversations:
        roles = [message["role"] for message in messages]
        assert roles[roles[0] == "system" :] in (["user", "assistant"], ["user", "assistant"] * 2)
        text = json.dumps(messages, ensure_ascii=False)
        assert text.isascii(), text
        for message in messages:
            assert message["content"] == message["content"].strip() != ""
            if message["role"] == "assistant":
                assert THREE_LINES.fullmatch(message["content"]), message["content"]


def test_plain_facts_end_with_the_fact_and_share_no_question_with_the_tutor():
    facts = load_conversations(PLAIN_FACTS)
    assert len(facts) == 60
    asked = {question["content"] for question, _ in facts}
    assert len(asked) == 60
    tutor = {message["content"] for messages in load_conversations(BUNDLED) for message in messages}
    assert not asked & tutor
    for question, answer in facts:
        assert re.fullmatch(r"[A-Z][A-Za-z ]+ \w+\.", answer["content"]), question


# ---- real sets, where they are


def shared(*parts):
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip("the shared data folder is not there")
    return path


def test_reads_gsm8k():
    mapper = prompt_and_answer("question", "answer")
    rows = load_conversations(str(shared("gsm8k", "test.jsonl")), to_messages=mapper)
    assert len(rows) == 1319
    assert all(re.search(r"#### -?[\d,.]+$", answer["content"]) for _, answer in rows)
    with pytest.raises(DataError, match=r"test.jsonl line 1, field 'messages': it is missing"):
        load_conversations(str(shared("gsm8k", "test.jsonl")))


def test_reads_instruct_1100():
    path = shared("instruct_1100", "instruction-data.json")
    conversations = load_conversations(str(path))
    assert len(conversations) == 1100
    first = json.loads(path.read_text())[0]
    assert conversations[0] == [
        {"role": "user", "content": f"{first['instruction']}\n{first['input']}"},
        {"role": "assistant", "content": first["output"]},
    ]


def test_reads_oasst_trees():
    conversations = load_conversations(str(shared("oasst_sample", "en_100_tree.jsonl.gz")))
    assert len(conversations) == 100
    assert max(map(len, conversations)) > 2
    for messages in conversations:
        roles = [message["role"] for message in messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)


# ---- splits and batches


@given(n=st.integers(1, 40), seed=st.integers(0, 5), data=st.data())
def test_split_has_no_overlap_and_loses_nothing(n, seed, data):
    n_test = data.draw(st.integers(0, n - 1))
    rows = chats(n)
    train, test = split_conversations(rows, n_test, seed)
    assert (len(train), len(test)) == (n - n_test, n_test)
    key = json.dumps
    assert sorted(map(key, train + test)) == sorted(map(key, rows))
    assert split_conversations(rows, n_test, seed) == (train, test)


def test_split_depends_on_the_seed():
    rows = chats(50)
    assert split_conversations(rows, 10, 0) != split_conversations(rows, 10, 1)


def test_copies_of_test_rows_are_not_trained_on():
    rows = [*chats(3), *chats(3)]
    train, test = split_conversations(rows, 2, 0)
    assert len(train) < 4
    assert not any(row in test for row in train)


@pytest.mark.parametrize("n_test", [-1, 5, 6])
def test_split_sizes(n_test):
    with pytest.raises(ConfigError, match=rf"n_test={n_test}, but there are 5 .*0 to 4"):
        split_conversations(chats(5), n_test, 0)


@given(n=st.integers(1, 60), size=st.integers(1, 70), seed=st.integers(0, 9))
def test_each_epoch_visits_each_row_once(n, size, seed):
    batches = Batches(n, size, seed)
    steps = batches.steps_per_epoch
    for epoch in range(3):
        visited = [batches[epoch * steps + i] for i in range(steps)]
        assert sorted(itertools.chain(*visited)) == list(range(n))
        assert {len(batch) for batch in visited[:-1]} <= {size}
        assert 1 <= len(visited[-1]) <= size


@given(n=st.integers(1, 30), size=st.integers(1, 8), start=st.integers(0, 50))
def test_order_is_the_same_from_any_step(n, size, start):
    straight = [Batches(n, size, 3)[step] for step in range(60)]
    resumed = [Batches(n, size, 3)[step] for step in range(start, 60)]
    assert resumed == straight[start:]
    epoch, index = Batches(n, size, 3).locate(start)
    assert epoch * Batches(n, size, 3).steps_per_epoch + index == start


def test_orders_differ_between_epochs_and_seeds():
    batches = Batches(30, 30, 0)
    assert batches[0] != batches[1]
    assert batches[0] != Batches(30, 30, 1)[0]
    assert batches[0] != sorted(batches[0])


def test_batches_need_rows():
    with pytest.raises(ConfigError, match="n_rows=0 and batch_size=4: both must be at least 1"):
        Batches(0, 4, 0)
