"""Words in many scripts, and what duplicates and leaks make of them."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapruner.cleaning.steps.contaminated import contaminated
from datapruner.cleaning.steps.near import near_duplicates
from datapruner.signals.texts.concepts import extract_concepts
from datapruner.words import bare_words, has_unspaced, joined, numbers_of, spread, words_of

SPACED = {
    "hindi": "मेरी बहन हर शाम नदी के किनारे टहलती है",
    "bengali": "আমার বোন প্রতিদিন সন্ধ্যায় নদীর ধারে হাঁটে",
    "tamil": "என் சகோதரி தினமும் மாலையில் ஆற்றங்கரையில் நடக்கிறாள்",
    "arabic": "تَمْشِي أُخْتِي كُلَّ مَسَاءٍ عَلَى ضِفَّةِ النَّهْرِ",
    "hebrew": "אֲחוֹתִי הוֹלֶכֶת כָּל עֶרֶב עַל גְּדַת הַנָּהָר",
    "persian": "خواهرم هر شب کنار رودخانه می\u200cرود",
    "korean": "내 여동생은 매일 저녁 강가를 걷는다",
    "vietnamese": "em gái tôi đi dạo bên bờ sông mỗi tối",
}
UNSPACED = {
    "thai": "น้องสาวของฉันเดินเล่นริมแม่น้ำทุกเย็นหลังจากเลิกงานแล้วกลับบ้านไปทำกับข้าว",
    "lao": "ເອື້ອຍຂອງຂ້ອຍຍ່າງຫຼິ້ນຢູ່ແຄມແມ່ນ້ຳທຸກແລງຫຼັງຈາກເລີກວຽກແລ້ວກັບບ້ານໄປແຕ່ງກິນ",
    "khmer": "បងស្រីរបស់ខ្ញុំដើរលេងតាមមាត់ទន្លេរៀងរាល់ល្ងាចបន្ទាប់ពីធ្វើការហើយត្រឡប់ទៅផ្ទះដើម្បីចម្អិនអាហារ",
    "myanmar": "ကျွန်မရဲ့အစ်မဟာညနေတိုင်းမြစ်ကမ်းနားမှာလမ်းလျှောက်ပြီးအလုပ်ပြီးရင်အိမ်ပြန်ပြီးထမင်းချက်တယ်",
    "tibetan": "ངའི་སྲིང་མོ་ཉིན་ལྟར་དགོང་མོ་ཆུ་འགྲམ་དུ་འགྲོ་བ་དང་ལས་ཀ་ཚར་རྗེས་ཁྱིམ་དུ་ལོག་ནས་ཁ་ལག་བཟོ་གི་ཡོད",
    "chinese": "我姐姐每天傍晚下班以后都会沿着河边散步然后再回家给全家人做一顿热腾腾的晚饭",
    "rare ideographs": "𠀀𠀁𠀂𠀃𠀄𠀅𠀆𠀇𠀈𠀉𠀊𠀋𠀌𠀍𠀎𠀏𠀐𠀑𠀒𠀓𠀔𠀕𠀖𠀗𠀘𠀙𠀚𠀛𠀜𠀝𠀞𠀟𠀠𠀡𠀢𠀣",
    "japanese": "姉は毎日夕方に仕事が終わってから川辺をゆっくり散歩してそれから家に帰って夕食を作ります",
}


@pytest.mark.parametrize("text", SPACED.values(), ids=SPACED)
def test_a_word_between_blanks_is_one(text):
    assert words_of(text) == unicodedata.normalize("NFC", text).split()
    assert len(bare_words(text + "!")) == len(text.split())


@pytest.mark.parametrize("text", UNSPACED.values(), ids=UNSPACED)
def test_scripts_without_spaces_are_taken_apart_and_marks_stay_with_their_letter(text):
    words = words_of(text)
    assert "".join(words) == unicodedata.normalize("NFC", text).replace("་", "")
    assert len(words) > 20
    assert not any(unicodedata.category(word[0]) == "Mn" for word in words)
    assert bare_words(f"«{text}»") == words
    assert words_of(f"see {text} 12") == ["see", *words, "12"]


@pytest.mark.parametrize("text", UNSPACED.values(), ids=UNSPACED)
def test_a_letter_less_is_a_near_duplicate_and_another_text_is_none(text):
    shorter = text[: len(text) - 2]
    others = [other for other in UNSPACED.values() if other != text]
    texts = [text, shorter, *others]
    assert near_duplicates(texts, np.arange(len(texts))).rows.tolist() == [1]


@pytest.mark.parametrize("name", SPACED)
def test_a_leak_is_found_in_every_script_and_a_shared_pattern_is_none(name):
    text = SPACED[name]
    words = text.split()
    other = " ".join(word if place % 2 else f"x{place}" for place, word in enumerate(words))
    found = contaminated([f"... {text} ...", other], [text], np.arange(2))
    assert found.rows.tolist() == [0]


def test_a_leak_without_its_points_is_found():
    for name in ("arabic", "hebrew"):
        plain = "".join(sign for sign in SPACED[name] if unicodedata.category(sign) != "Mn")
        assert plain != SPACED[name]
        assert contaminated([plain], [SPACED[name]], [0]).measures.tolist() == [1.0]


def test_two_hindi_questions_of_one_pattern_are_no_leak():
    asked, learned = "बिल्ली कहाँ सोती है और क्या पीती है", "कुत्ता कहाँ सोता है और क्या पीता है"
    assert len(bare_words(asked)) == len(asked.split())
    assert len(contaminated([learned], [asked], [0])) == 0


def test_numbers_in_order_and_in_any_digits():
    assert numbers_of("३ किलो 1,000.5 a12b") == ("3", "1,000.5", "12")
    assert numbers_of("no numbers") == ()


@given(st.text())
def test_words_hold_every_letter(text):
    kept = "".join(words_of(text))
    assert {sign for sign in kept if sign.isalnum()} == {
        sign
        for sign in unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())
        if sign.isalnum()
    }
    assert all(words_of(text))
    assert has_unspaced(text) is False or not text.isascii()


@pytest.mark.parametrize("text", UNSPACED.values(), ids=UNSPACED)
def test_letters_that_were_spread_are_joined_again(text):
    assert joined(spread(text).split()) == text


def test_concepts_of_khmer_are_whole_clusters():
    river = "ទន្លេ"
    found = extract_concepts([f"{river} a1", f"{river} b2", "x"], max_words=5)
    assert set(found.names) & {river}
