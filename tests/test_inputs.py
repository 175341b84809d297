"""What people bring: layouts x columns, scripts, file types, and what is refused; each with what it must give.

Written from the outside, through the public verbs: no entry knows how a thing is done.
"""

from __future__ import annotations

import copy
import gzip
import json
import re

import pytest

import datapruner as dp

CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 3}}}
TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}},
}


def turns(question, answer, **more):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer, **more}]


# A row of each layout: what is asked, what is answered, and every column that makes a row what it is, each with
# another value that makes it another row.
LAYOUTS = {
    "question_answer": (
        {"question": "What is two and three?", "answer": "Five."},
        {"question": "What is one and three?", "answer": "It is five."},
    ),
    "question_context_answer": (
        {"question": "Which river?", "context": "The Oder flows north.", "answer": "The Oder."},
        {"question": "Which town?", "context": "Boats cross the Oder.", "answer": "Oder."},
    ),
    "dolly": (
        {"instruction": "Summarise.", "context": "The bakery opens at six.", "response": "Opens at six."},
        {
            "instruction": "Say in few words what this is about.",
            "context": "The bakery closes at noon.",
            "response": "At six.",
        },
    ),
    "alpaca": (
        {"instruction": "Translate.", "input": "good day", "output": "guten Tag"},
        {"instruction": "Say it in German.", "input": "good night", "output": "Guten Tag!"},
    ),
    "alpaca_history": (
        {
            "instruction": "And now?",
            "input": "",
            "output": "Now it rains.",
            "system": "You are brief.",
            "history": [["How is the weather?", "Sunny."]],
        },
        {"history": [["How is the weather?", "Windy."]], "system": "You are a poet.", "output": "It rains."},
    ),
    "messages": (
        {"messages": turns("Name a tree.", "Oak.")},
        {"messages": turns("Name a tree.", "Elm.")},
    ),
    "messages_tools": (
        {"messages": turns("Add 2 and 3", "", tool_calls=[CALL]), "tools": json.dumps([TOOL])},
        {
            "tools": json.dumps([TOOL | {"strict": True}]),
            "messages": turns("Add 2, 3", "", tool_calls=[CALL]),
        },
    ),
    "sharegpt": (
        {
            "conversations": [
                {"from": "human", "value": "Name a fruit."},
                {"from": "gpt", "value": "A cherry."},
            ],
            "system": "Be brief.",
        },
        {"system": "Be long."},
    ),
    "preference": (
        {"prompt": "Name a fruit.", "chosen": "A cherry is a fruit.", "rejected": "A whale."},
        {"prompt": "Name a red fruit.", "chosen": "A cherry.", "rejected": "A stone."},
    ),
    "preference_turns": (
        {"chosen": turns("Name a fruit.", "A cherry."), "rejected": turns("Name a fruit.", "A whale.")},
        {"rejected": turns("Name a fruit.", "A stone.")},
    ),
    "transcripts": (
        {
            side: f"\n\nHuman: Hello.\n\nAssistant: Hello!\n\nHuman: Name a fruit.\n\nAssistant: {answer}"
            for side, answer in (("chosen", "A cherry."), ("rejected", "A whale."))
        },
        {"rejected": "\n\nHuman: Hello.\n\nAssistant: Hello!\n\nHuman: Name a fruit.\n\nAssistant: A stone."},
    ),
    "sharegpt_preference": (
        {
            "conversations": [{"from": "human", "value": "Name a fruit."}],
            "chosen": {"from": "gpt", "value": "A cherry."},
            "rejected": {"from": "gpt", "value": "A whale."},
        },
        {
            "chosen": {"from": "gpt", "value": "A red cherry."},
            "rejected": {"from": "gpt", "value": "A stone."},
        },
    ),
    "orca_preference": (
        {"system": "Be brief.", "question": "Name a fruit.", "chosen": "A cherry.", "rejected": "A whale."},
        {"system": "Be long.", "question": "Name one fruit.", "rejected": "A stone."},
    ),
    "instruction_preference": (
        {"instruction": "Name a fruit.", "chosen": "A cherry.", "rejected": "A whale."},
        {"instruction": "Name one fruit.", "rejected": "A stone."},
    ),
    "several_rejected": (
        {"prompt": "Name a fruit.", "chosen": "A cherry.", "rejected": ["A whale.", "A stone."]},
        {"rejected": ["A whale.", "A house."]},
    ),
    "rejected_response": (
        {"messages": turns("Name a fruit.", "A cherry."), "rejected_response": "A whale."},
        {"rejected_response": "A stone."},
    ),
    "unpaired": (
        {"prompt": "Name a fruit.", "completion": "A cherry.", "label": True},
        {"label": False, "completion": "A red cherry."},
    ),
    "query_response": (
        {"query": "Name a fruit.", "response": "A cherry."},
        {"query": "Name one fruit.", "response": "Cherry."},
    ),
    "input_output": (
        {"input": "Name a fruit.", "output": "A cherry."},
        {"input": "Name one fruit.", "output": "Cherry."},
    ),
    "open_orca": (
        {"system_prompt": "Be brief.", "question": "Name a fruit.", "response": "A cherry."},
        {"system_prompt": "Be long.", "question": "Name one fruit.", "response": "Cherry."},
    ),
    "prompt_completion": (
        {"prompt": "The sky is", "completion": "blue today."},
        {"prompt": "The sea is", "completion": "blue and wide."},
    ),
    "prompt_response": (
        {"prompt": "The sky is", "response": "blue today."},
        {"prompt": "The sea is", "response": "blue and wide."},
    ),
    "text": ({"text": "The sky is blue today."}, {"text": "The sea is green tonight."}),
}
MEANING = [(name, column) for name, (_, other) in LAYOUTS.items() for column in other]


@pytest.fixture(autouse=True)
def own_cache(cache):
    return cache


def kept(rows, **options):
    return dp.prune(
        copy.deepcopy(rows), **{"scorer": "random", "keep": 1.0, "progress": False, **options}
    ).indices.tolist()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_copy_is_a_copy(name):
    row, other = LAYOUTS[name]
    # A third row, so that what is found is not an accident of two.
    assert kept([row, row, row | other], dedup=["exact"]) == [0, 2]


@pytest.mark.parametrize(("name", "column"), MEANING)
def test_a_column_that_means_something_makes_another_row(name, column):
    row, other = LAYOUTS[name]
    assert kept([row, row | {column: other[column]}], dedup=["exact"]) == [0, 1]


# What a system says and what tools there are is shared by many rows, and no part of how alike they are.
ALIKE = [(name, column) for name, column in MEANING if column not in ("system", "system_prompt", "tools")]


@pytest.mark.parametrize(("name", "column"), ALIKE)
def test_near_duplicates_need_the_same_answer_texts(name, column):
    """Rows of a few words that differ in one column are not near duplicates, whatever the column is."""
    row, other = LAYOUTS[name]
    assert kept([row, row | {column: other[column]}], dedup=["near"]) == [0, 1]


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_answer_of_any_layout_is_taken_for_empty(name):
    row, other = LAYOUTS[name]
    assert kept([row, row | other]) == [0, 1]


# Scripts --------------------------------------------------------------------------------------------------------

# A sentence, the same with one word changed, and another of the same subject with other words.
SCRIPTS = {
    "latin": (
        "The library is open every day except Monday from nine in the morning until six and has two hundred seats",
        ("morning", "evening"),
        "On Monday the museum by the river stays closed because the heating of the old halls is being repaired",
    ),
    "greek": (
        "Η βιβλιοθήκη είναι ανοιχτή κάθε μέρα εκτός από τη Δευτέρα από τις εννέα το πρωί έως τις έξι και έχει θέσεις",
        ("πρωί", "βράδυ"),
        "Το μουσείο δίπλα στο ποτάμι μένει κλειστό επειδή επισκευάζεται η θέρμανση στις παλιές αίθουσες",
    ),
    "cyrillic": (
        "Библиотека открыта каждый день кроме понедельника с девяти утра до шести вечера и в ней двести мест",
        ("двести", "триста"),
        "Музей у реки закрыт потому что в старых залах ремонтируют отопление",
    ),
    "arabic": (
        "المكتبة مفتوحة كل يوم ما عدا يوم الاثنين من الساعة التاسعة صباحا حتى السادسة مساء وفيها مئتا مقعد للقراءة",
        ("للقراءة", "للدراسة"),
        "المتحف القريب من النهر مغلق لأن التدفئة في القاعات القديمة تحت الإصلاح ولا يأتي الزوار إلا في الأسبوع القادم",
    ),
    "hebrew": (
        "הספרייה פתוחה בכל יום חוץ מיום שני מתשע בבוקר ועד שש בערב ויש בה מאתיים מקומות ישיבה לקריאה שקטה",
        ("שקטה", "נעימה"),
        "המוזיאון ליד הנהר סגור כי מתקנים את החימום באולמות הישנים והמבקרים יגיעו רק בשבוע הבא אחרי החג הגדול",
    ),
    "hindi": (
        "पुस्तकालय सोमवार को छोड़कर हर दिन सुबह नौ बजे से शाम छह बजे तक खुला रहता है और इसमें दो सौ सीटें हैं",
        ("सुबह", "दोपहर"),
        "नदी के पास का संग्रहालय बंद है क्योंकि पुराने कमरों में मरम्मत चल रही है और लोग अगले सप्ताह ही आएंगे",
    ),
    "tamil": (
        "நூலகம் திங்கள் தவிர ஒவ்வொரு நாளும் காலை ஒன்பது மணி முதல் மாலை ஆறு மணி வரை திறந்திருக்கும் அங்கு இருநூறு இருக்கைகள் உள்ளன",
        ("நூலகம்", "வாசகசாலை"),
        "ஆற்றின் அருகே உள்ள அருங்காட்சியகம் மூடப்பட்டுள்ளது ஏனெனில் பழைய அறைகளில் பழுது பார்க்கும் பணி நடக்கிறது",
    ),
    "korean": (
        "도서관은 월요일을 제외하고 매일 아침 아홉 시부터 저녁 여섯 시까지 열려 있으며 자리가 이백 개 있습니다",
        ("있습니다", "있다"),
        "강가의 박물관은 오래된 전시실의 난방을 고치고 있어서 닫혀 있고 방문객은 다음 주에야 들어갈 수 있습니다",
    ),
    "chinese": (
        "图书馆除了星期一以外每天从早上九点开到晚上六点里面有两百多个座位可以安静地看书学习和查阅各种资料",
        ("两百", "三百"),
        "河边的博物馆因为老展厅的暖气正在修理所以关门了参观的人要等到下个星期才能再次进去看新的展览",
    ),
    "japanese": (
        "図書館は月曜日を除いて毎日朝九時から夕方六時まで開いており静かに本を読むことができる席が二百以上あります",
        ("二百", "三百"),
        "川沿いの博物館は古い展示室の暖房を修理しているため閉まっており来週になるまで見学することができません",
    ),
    "thai": (
        "ห้องสมุดเปิดทุกวันยกเว้นวันจันทร์ตั้งแต่เก้าโมงเช้าจนถึงหกโมงเย็นและมีที่นั่งอ่านหนังสือมากกว่าสองร้อยที่นั่ง",
        ("สองร้อย", "สามร้อย"),
        "พิพิธภัณฑ์ริมแม่น้ำปิดเพราะกำลังซ่อมเครื่องทำความร้อนในห้องเก่าผู้เข้าชมต้องรอจนถึงสัปดาห์หน้าจึงจะเข้าได้",
    ),
    "lao": (
        "ຫໍສະໝຸດເປີດທຸກມື້ຍົກເວັ້ນວັນຈັນຕັ້ງແຕ່ເກົ້າໂມງເຊົ້າຈົນເຖິງຫົກໂມງແລງແລະມີບ່ອນນັ່ງອ່ານປຶ້ມຫຼາຍກວ່າສອງຮ້ອຍບ່ອນ",
        ("ສອງຮ້ອຍ", "ສາມຮ້ອຍ"),
        "ພິພິທະພັນແຄມແມ່ນ້ຳປິດເພາະກຳລັງສ້ອມແປງເຄື່ອງເຮັດຄວາມຮ້ອນໃນຫ້ອງເກົ່າຜູ້ເຂົ້າຊົມຕ້ອງລໍຖ້າຮອດອາທິດໜ້າ",
    ),
    "khmer": (
        "បណ្ណាល័យបើករាល់ថ្ងៃលើកលែងតែថ្ងៃចន្ទចាប់ពីម៉ោងប្រាំបួនព្រឹករហូតដល់ម៉ោងប្រាំមួយល្ងាចហើយមានកន្លែងអង្គុយអានសៀវភៅជាងពីររយ",
        ("ពីររយ", "បីរយ"),
        "សារមន្ទីរនៅមាត់ទន្លេបិទព្រោះកំពុងជួសជុលម៉ាស៊ីនកម្តៅក្នុងបន្ទប់ចាស់អ្នកទស្សនាត្រូវរង់ចាំដល់សប្តាហ៍ក្រោយទើបអាចចូលបាន",
    ),
    "myanmar": (
        "စာကြည့်တိုက်ကိုတနင်္လာနေ့မှလွဲ၍နေ့တိုင်းမနက်ကိုးနာရီမှညနေခြောက်နာရီအထိဖွင့်ထားပြီးစာဖတ်ရန်ထိုင်ခုံနှစ်ရာကျော်ရှိသည်",
        ("နှစ်ရာ", "သုံးရာ"),
        "မြစ်ကမ်းနားရှိပြတိုက်ကိုအခန်းဟောင်းများတွင်ပြုပြင်နေသောကြောင့်ပိတ်ထားပြီးလာမည့်အပတ်မှသာဝင်ရောက်ကြည့်ရှုနိုင်မည်",
    ),
    "tibetan": (
        "དཔེ་མཛོད་ཁང་གཟའ་ཟླ་བ་མ་གཏོགས་ཉིན་ལྟར་ཞོགས་པ་ཆུ་ཚོད་དགུ་པ་ནས་དགོང་མོ་ཆུ་ཚོད་དྲུག་པའི་བར་དུ་ཁ་ཕྱེ་ཡོད་དེ་ནང་དུ་རྐུབ་སྟེགས་ཉིས་བརྒྱ་ཡོད",
        ("ཉིས་བརྒྱ", "སུམ་བརྒྱ"),
        "ཆུ་བོའི་འགྲམ་གྱི་འགྲེམས་སྟོན་ཁང་ནི་ཁང་པ་རྙིང་པར་ཉམས་གསོ་བྱེད་བཞིན་པས་སྒོ་བརྒྱབ་ཡོད་ལྟ་སྐོར་བ་རྣམས་བདུན་ཕྲག་རྗེས་མར་ཡོང་རྒྱུ་རེད",
    ),
}
MARKED = {
    "tashkeel": ("كَتَبَ الطَّالِبُ الدَّرْسَ فِي الدَّفْتَرِ الْجَدِيدِ", "قَرَأَ الْمُعَلِّمُ الْكِتَابَ فِي الْمَكْتَبَةِ الْكَبِيرَةِ"),
    "niqqud": ("הַיֶּלֶד אָכַל תַּפּוּחַ אָדֹם בַּגַּן הַגָּדוֹל", "הַמּוֹרָה קָרְאָה סֵפֶר יָשָׁן בַּבַּיִת הַקָּטֹן"),
    "hindi": ("घोड़ा क्या खाता है और कहाँ रहता है", "हाथी क्या पीता है और कब सोता है"),
    "bengali": ("ঘোড়া কী খায় এবং কোথায় থাকে আজকাল", "হাতি কী পান করে এবং কখন ঘুমায় এখন"),
}


def answers(*texts):
    return [{"question": f"{number}?", "answer": text} for number, text in enumerate(texts)]


@pytest.mark.parametrize("script", SCRIPTS)
def test_one_word_changed_is_a_near_duplicate_in_every_script(script):
    text, (old, new), other = SCRIPTS[script]
    assert old in text
    rows = [{"text": each} for each in (text, text.replace(old, new), other)]
    assert kept(rows, dedup=["near"]) == [0, 2]


@pytest.mark.parametrize("script", MARKED)
def test_vowel_signs_do_not_tear_words_apart(script, tmp_path):
    """A test row of one pattern with other words is no leak; the row itself is."""
    row, test = MARKED[script]
    (tmp_path / "test.jsonl").write_text(json.dumps({"text": test}, ensure_ascii=False))
    (tmp_path / "same.jsonl").write_text(json.dumps({"text": row}, ensure_ascii=False))
    rows = [{"text": row}, {"text": "something else altogether"}]
    assert kept(rows, decontaminate=str(tmp_path / "test.jsonl")) == [0, 1]
    assert kept(rows, decontaminate=str(tmp_path / "same.jsonl")) == [1]


# What is compared -----------------------------------------------------------------------------------------------

PAIRS = {
    # name: (two answers, kept under exact, text, loose)
    "the same": ("It is Five.", "It is Five.", 1, 1, 1),
    "case": ("It is Five.", "it is five.", 2, 2, 1),
    "punctuation": ("It is five.", "It is five!", 2, 2, 1),
    "white space": ("It is  five. ", "It is five.", 2, 1, 1),
    "unicode form": ("Zoe\u0308 asked.", "Zo\u00eb asked.", 2, 1, 1),
    "indentation of code": (
        "def f(x):\n    if x:\n        return 1\n    return 2",
        "def f(x):\n    if x:\n        return 1\n        return 2",
        2,
        2,
        None,
    ),
    "another word": ("It is five.", "It is six.", 2, 2, 2),
}


@pytest.mark.parametrize("match", ["exact", "text", "loose"])
@pytest.mark.parametrize("pair", PAIRS)
def test_what_counts_as_the_same_text(pair, match):
    one, other, *wanted = PAIRS[pair]
    rows = [{"question": "What?", "answer": answer} for answer in (one, other)]
    want = wanted[["exact", "text", "loose"].index(match)]
    if want is not None:
        assert len(kept(rows, dedup=["exact"], match=match)) == want


def test_rows_of_one_wording_and_other_numbers():
    rows = [
        {
            "question": f"A farmer who lives in the old house beside the river has {n} sheep and no other animals. "
            "How many feet do the sheep of the farmer have when all of them stand on the meadow behind the house?",
            "answer": f"Every sheep has four feet, so that all of them together have {4 * n} feet on the meadow.",
        }
        for n in (3, 11, 27)
    ]
    assert len(kept(rows, dedup=["near"])) == 1
    assert len(kept(rows, dedup=["near"], near_numbers=True)) == 3


# File types -----------------------------------------------------------------------------------------------------

ROWS = [
    {"question": "Why \u00e9?", "answer": 'He said "no", then left.', "n": 1},
    {"question": "How?", "answer": "Line one\nline two", "n": 2},
    {"question": "When?", "answer": "2021-03-04", "n": 3},
]
QUESTIONS = [row["question"] for row in ROWS]


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def columns(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def file(name, content, mode="w"):
    def make(folder):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content, encoding="utf-8", newline="")
        return path

    return make


def table():
    import pyarrow as pa

    return pa.Table.from_pylist(ROWS)


def parquet(folder):
    import pyarrow.parquet as pq

    pq.write_table(table(), folder / "rows.parquet")
    return folder / "rows.parquet"


def string_view(folder):
    import pyarrow as pa
    from pyarrow import feather

    views = pa.table({"question": pa.array(QUESTIONS, pa.string_view()), "answer": table()["answer"]})
    feather.write_feather(views, folder / "rows.arrow", compression="uncompressed")
    return folder / "rows.arrow"


def zst(folder):
    import zstandard

    (folder / "rows.jsonl.zst").write_bytes(zstandard.compress(lines(ROWS).encode()))
    return folder / "rows.jsonl.zst"


def pandas(folder):
    import pandas as pd

    return pd.DataFrame(ROWS)


def polars(folder):
    return pytest.importorskip("polars", reason="polars is not installed").DataFrame(ROWS)


def dataset(folder):
    from datasets import Dataset

    return Dataset.from_list(ROWS)


def csv_text(separator, newline, bom=""):
    quoted = (
        [f'"{str(row[name]).replace(chr(34), chr(34) * 2)}"' for name in ("question", "answer", "n")]
        for row in ROWS
    )
    head = separator.join(("question", "answer", "n"))
    return bom + newline.join([head, *map(separator.join, quoted)]) + newline


FILES = {
    "jsonl": file("rows.jsonl", lines(ROWS)),
    "jsonl with a mark at its start": file("rows.jsonl", "\ufeff" + lines(ROWS)),
    "jsonl with CRLF and empty lines": file("rows.jsonl", lines(ROWS).replace("\n", "\r\n\r\n")),
    "jsonl without a last newline": file("rows.jsonl", lines(ROWS).rstrip()),
    "jsonl.gz": file("rows.jsonl.gz", gzip.compress(lines(ROWS).encode())),
    "jsonl.zst": zst,
    "json array": file("rows.json", json.dumps(ROWS)),
    "json lines called json": file("rows.json", lines(ROWS)),
    "json by columns": file("rows.json", json.dumps(columns(ROWS))),
    "json under data": file("rows.json", json.dumps({"version": "1.1", "data": ROWS})),
    "csv": file("rows.csv", csv_text(",", "\n")),
    "csv of Excel": file("rows.csv", csv_text(",", "\r\n", "\ufeff")),
    "tsv": file("rows.tsv", csv_text("\t", "\n")),
    "parquet": parquet,
    "string_view": string_view,
    "a folder": lambda folder: file("there/rows.jsonl", lines(ROWS))(folder).parent,
    "data/train": lambda folder: file("there/data/train/rows.jsonl", lines(ROWS))(folder).parents[2],
    "a glob": lambda folder: str(file("there/rows-1.jsonl", lines(ROWS))(folder).parent / "rows-*.jsonl"),
    "a list of files": lambda folder: [
        str(file("a.jsonl", lines(ROWS[:1]))(folder)),
        str(file("b.jsonl", lines(ROWS[1:]))(folder)),
    ],
    "a list of objects": lambda folder: ROWS,
    "an object of lists": lambda folder: columns(ROWS),
    "a generator": lambda folder: (dict(row) for row in ROWS),
    "pandas": pandas,
    "polars": polars,
    "Arrow": lambda folder: table(),
    "a Dataset": dataset,
}


@pytest.mark.parametrize("kind", FILES)
def test_files_and_objects(kind, tmp_path):
    samples = dp.load_samples(FILES[kind](tmp_path))
    assert [sample.part("prompt") for sample in samples.iter_samples()] == QUESTIONS
    assert [sample.part("response") for sample in samples.iter_samples()] == [row["answer"] for row in ROWS]


def test_a_list_of_texts():
    samples = dp.load_samples(["one text", "another"])
    assert [sample.part("both") for sample in samples.iter_samples()] == ["one text", "another"]


REFUSED = {
    # name: (file name, content, what the sentence says)
    "LFS pointer": (
        "rows.jsonl",
        "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 123\n",
        "(?i)git.?lfs",
    ),
    "Python repr": ("rows.jsonl", "{'question': 'a', 'answer': None}\n", "(?i)python|single quotes"),
    "a key twice": (
        "rows.jsonl",
        '{"question": "a", "question": "b", "answer": "c"}\n',
        "(?i)question.*twice|twice.*question",
    ),
    "numbers and texts": (
        "rows.jsonl",
        '{"question": "a", "answer": "b", "n": 1}\n{"question": "a", "answer": "b", "n": "x"}\n',
        "(?i)line 2.*'n'|'n'.*line 2",
    ),
    "half an emoji": ("rows.jsonl", '{"question": "a\\ud83d", "answer": "b"}\n', "(?i)line 1"),
    "cut in the middle": ("rows.jsonl", lines(ROWS)[:-20], "(?i)line 3"),
    "no text at all": ("rows.jsonl", '{"a": 1}\n', r"(?i)column"),
    "empty": ("rows.jsonl", "", "(?i)no rows|empty"),
    "HTML": ("rows.jsonl", "<!DOCTYPE html><html></html>", "(?i)line 1|html"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_says_why(kind, tmp_path):
    name, content, said = REFUSED[kind]
    (tmp_path / name).write_text(content)
    with pytest.raises(dp.DataPrunerError) as error:
        dp.prune(tmp_path / name, scorer="random", keep=1.0)
    assert re.search(said, str(error.value)), error.value
    assert "Traceback" not in str(error.value)


# What comes out -------------------------------------------------------------------------------------------------

ODD = {
    "nulls that are not there": [{"text": "a", "meta": {"x": 1}}, {"text": "b", "meta": {"y": 2}}],
    "empty objects": [{"text": "a", "meta": {}}, {"text": "b", "meta": {}}],
    "null and absent": [{"text": "a", "x": None}, {"text": "b"}],
    "texts like dates": [{"text": "2021-03-04"}, {"text": "2021-03-04T05:06:07"}],
    "large whole numbers": [{"text": "a", "id": 2**64 - 1}, {"text": "b", "id": 1}],
    "lists of lists": [{"text": "a", "l": [[1], []]}, {"text": "b", "l": []}],
    "calls with other arguments": [
        {"messages": turns("a", "", tool_calls=[CALL])},
        {
            "messages": turns(
                "b", "", tool_calls=[{"type": "function", "function": {"name": "f", "arguments": {"q": "x"}}}]
            )
        },
    ],
    "every letter": [{"text": "\u2028\x00é你😀"}, {"text": "\t\r\n"}],
}


@pytest.mark.parametrize("kind", ODD)
def test_lines_come_back_as_they_were(kind, tmp_path):
    (tmp_path / "rows.jsonl").write_text(lines(ODD[kind]))
    selection = dp.prune(
        tmp_path / "rows.jsonl", scorer="random", keep=1.0, on_empty="keep", format="jsonl", progress=False
    )
    selection.save(tmp_path / "out")
    (written,) = (tmp_path / "out" / "data").iterdir()
    assert [json.loads(line) for line in written.read_text("utf-8").split("\n") if line] == ODD[kind]


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
@pytest.mark.parametrize("kind", ODD)
def test_what_is_written_loads(kind, format, tmp_path):
    """`load_dataset` gives the rows; what a column holds is compared without the nulls that Arrow puts in."""
    from datasets import load_dataset

    def bare(value):
        if isinstance(value, dict):
            return {key: bare(item) for key, item in value.items() if item is not None and bare(item) != {}}
        return [bare(item) for item in value] if isinstance(value, list) else value

    (tmp_path / "rows.jsonl").write_text(lines(ODD[kind]))
    selection = dp.prune(
        tmp_path / "rows.jsonl", scorer="random", keep=1.0, on_empty="keep", format=format, progress=False
    )
    selection.save(tmp_path / "out")
    loaded = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "hf"))
    rows = [
        {k: json.loads(v) if k == "meta" and isinstance(v, str) else v for k, v in row.items()}
        for row in loaded
    ]
    assert bare(rows) == bare(ODD[kind])
