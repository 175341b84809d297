"""Concepts of texts: what each row is about, by counting alone, without a tagger or any other model.

A concept is an n-gram of words between stop words and punctuation that several rows share, ranked by its C-value.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from datapruner.errors import DataPrunerError
from datapruner.signals.ragged import Ragged, offsets_of

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

# All lists are ours and English. The function words of another language bound nothing, but being in too many rows
# they are no concepts either.
_FUNCTION_WORDS = """
a about above across after again against ago all almost along already also although always am amid among an and
another any anybody anyone anything anyway anywhere are aren't around as aside at away back be became because become
becomes been before behind being below beneath beside besides between beyond both but by can can't cannot could
couldn't despite did didn't do does doesn't doing don't done down during each either else elsewhere enough etc even
ever every everybody everyone everything everywhere except few fewer first for former forward from further
furthermore had hadn't half hardly has hasn't have haven't having he he'd he'll he's hence her here here's hers
herself hey hi him himself his how however i i'd i'll i'm i've if in indeed inside instead into is isn't it it'd
it'll it's its itself just last latter least less lest let let's lot lots many may maybe me meanwhile might mine
more moreover most mostly much must my myself near nearly neither never nevertheless next no nobody none nor not
nothing now nowhere of off often oh ok okay on once one ones oneself only onto or other others otherwise ought our
ours ourselves out outside over own per perhaps please plus quite rather really same second shall she she'd she'll
she's should shouldn't since so some somebody somehow someone something sometimes somewhere soon still such than
that that's the their theirs them themselves then there there's thereby therefore these they they'd they'll they're
they've third this those though through throughout thus till to today together tomorrow tonight too toward towards
twice under unless unlike until unto up upon us usually various very via was wasn't we we'd we'll we're we've well
were weren't what what's whatever when whenever where whereas wherever whether which while who who's whoever whole
whom whose why will with within without won't would wouldn't yes yesterday yet you you'd you'll you're you've your
yours yourself yourselves zero two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
twenty thirty forty fifty sixty hundred hundreds thousand thousands million millions billion billions dozen dozens
mr mrs ms dr st rd th nd vs monday tuesday wednesday thursday friday saturday sunday january february march april
june july august september october november december
的 了 是 在 和 与 或 就 也 都 而 及 不 我 你 他 她 它 们 这 那 吗 呢 吧 啊 有 个
"""
_BOILERPLATE = """
abilities ability able absence action activities activity actual addition additional address advancement
advancements advantage advantages advice advise afp aftermath afternoon afterwards age ahead alike alone altogether
amidst amongst amount amounts analysis answer answers anymore anyways ap append appropriate area areas args argument
arguments argv arr arr1 array article articles ascending aspect aspects aspiring assistant attendees attention
author authorities available await aware background bad balance basis baz behavior behaviors belief benefits best
better bid bigger bin bit body bool boolean born born-again boundaries boy boys brighter brother brothers built-in
candidate capabilities case cases cast categories category center cents certain challenge challenges chance char
character cheaper choice choices cin circumstance class clear closer cm code codetoexecute colder collection com
combination combinations command commands comment communication concept concepts concise conditions connection
consequence consequences consistent console const content context control conversation correctly cost costs counter
course cout cstdlib curiosity current currently dad data date dates daughter day days dear decision decisions
decrease deeper def depth depths descending description desire desired desires detail detailed details development
developments device differ difference differences different difficult direction directly disadvantages discoveries
discovery div division dlrs dollar dollars dreams due duplicate duplicates earlier easier easy echo effect effective
effects effort efforts elaborate elem element elements elif en endl entailment entire environment equipment
equivalence equivalent era error errors essence evening event events everyone's exact exactly example examples
excitement experience experiences expert experts export expression fact factor factors facts false far faster fear
fears feet fewer fi field fifth figure figures filename final finally findings float folks follow following foo foot
force forces foreach form format forth foundation fourth fresher friend friends front full fully func function
functions gallon gallons general girl girls goal goals gonna good great greater ground group groups growth guidance
guy guys hand hands harder heart heavier hello high-quality hint hints home hopefully hotter hour hours hr href hrs
html http https husband hypothesis idea ideas impl import importance important impression inch inches inclusive
index individual individuals inference information init initial input input_str inputarray inputs insight insights
instance instruction instructions int int32 integer integers intensity intentions interaction interactions interest
io iostream issue issues item items journey key kg kid kids kind kinds km knowledge kwargs label labels lack lang
language larger later lb lbs leftover len length lesson lessons level lighter likely limit limits line lines list
listener lists little location longer loop loss losses lrb make makes man match material materials matter members
men meter meters method methods midnight mile miles min mind minus minute minutes mission mm module mom moment month
months mood morning mph multiple multiples namespace nan nature necessary negative newer news nice night noon
nowadays null num num1 num2 number numbers nutshell object objective objects occurrence officials older opinion
opportunities opportunity option options org original ounce ounces output output-only outputs overall page pages
pair paragraph param paraphrase paraphrases part participant participants particular parts past path pattern
patterns pave people percent percentage performance period person person's persona persons perspective phenomenon
phrase piece pieces place places portion position positions positive possibilities possibility possible potential
pound pounds powers practice premise presence previous previously price primary principle principles print printf
println prints prior prioritize private problem problems process product program programs progress project proper
properties property prospects public purpose pursuit qualities quality quantity quarter query querywithlocation
question questions quick quickly range rate reader readers ready real reality realm realms reason reasoning reasons
recently recipient recipients reference regardless region regions relations relationship relevant remainder request
requests res resistance resources respect respectively response responses rest return returns review right role
roleplay row rows rrb said sale sales sample samples satisfying sb scanf scanner scene section sections select self
sense sentence sentences sentiment series seventh several shellcommand side sides significance significant similar
simple simply sister sisters site situation sixth size skills smaller snippet solution solutions someone's son
source sources span special specific sqrt standpoint statement statements static status std stdio stock-in-trade
story str str1 str2 strength string stringbuilder strings stronger struct structure structures style subject
subjects suitable sum summary sure surface system systems target task tasks tbsp technique techniques temp term
terms text texts thing things time times tip tips title titles tl tmp toformer tone tool tools top topic topics
tostring total totals trait traits trip trips true tsp txt type types typical underway unique unk unrelated usage
useful user users usr usual utf utf-8 util val valid value values var variable variables variety vector version
versus vicinity viewer viewpoint void warmer way ways weaker weaknesses week weeks weight went wide width wife wiki
willing woman's word words world worse worst worth writeline www yard yards year years young younger
"""
_VERBS = """
accept accomplish accord account accuse achieve act adapt add add-on adjust admit adopt adorn affect agree aim allow
analyze announce appear apply appreciate approach argue arrange arrest arrive ask assign assist associate assume ate
attack attempt attend avoid bar base beat began begin begun behave believe belong bind blame bless block blow boost
bore borrow bother bought breaks breathe bring broke broken brought build built buy calculate call came capture care
carry catch caught cause celebrate change charge check choose chose chosen cite claim classify clean climb clinch
cling close collect combine come commit communicate compare complete compose compute concatenate concern conclude
conduct confirm connect consider consist construct contact contain continue contribute convert convey count cover
crash create criticize cross cry cut deal decide declare deem defend define deliver delve demand demonstrate deny
depend depict describe deserve design destroy detect determine develop die direct disappoint discover discuss
display divide donate double drag drank draw drawn drew drink driven drop drove dwell earn ease eat eaten edge edit
embark embrace emerge emit emphasize employ enable encounter encourage end engage enhance enjoy ensue ensure enter
equal erupt escape establish evaluate evoke examine execute exist expand expect expel explain explore express extend
extract face fail fall fallen feature fed feel fell felt fetch file fill filter find finish fire fit fix flew flown
fly focus foil fold forgot foster fought found fuel gain gather gave gaze gear generate get give given glance go
goes gone got gotten grab greet grew grow grown guarantee guess guide halt hang happen hate head hear heard held
help hid hidden hide highlight hit hold hop hope hung hurt identify ignore illustrate imagine impact implement
impress improve include increase indicate indulge influence inform inhabit insert inspire intend intrigue introduce
invite involve iterate join jump keep kept kick kill kiss knew know known laid laugh launch lay lead leap learn
leave led left lend lent let lie lift like linger listen lit live locate log look lose lost love made maintain
making manage mark mean meant measure meet mention met miss mix modify move multiply name need nod note notice obey
observe obtain occur offer open operate order organize oust overcome own pack paid paint pass pay peak perform
persist pick plan play point ponder possess post pour prefer prepare present preserve prevent proceed produce
promise propose protect prove provide pull pursue push put quit raise rally ran rang rattle reach react read realize
recall receive reckon recommend reduce refer reflect regain regard reject relate release rely remain remember remove
repeat replace reply report represent require resemble resolve respond restore result retrieve reveal reverse
rewrite rid ride rise risen rode role-play roll rose round ruffle rule run sang sat save saw say scare search see
seek seem seen seize sell send sent separate serve set settle shape share shift shine shone shook shot show shown
shut sign sing sit skip slam sleep slept slip slow slump soar sold solve sort sound spark speak specialize spend
spent split spoke spoken spot spread stand start state stay steer stem step stick stir stole stood stop strengthen
strive struck struggle stuck study submit subtract succeed suffer suggest suit summarize support suppose surround
swam swap sweep swell swim take taken talk taught tear tell tend test thank think thought threaten threw throw
thrown tie told took topple tore touch tout trade translate travel traverse treat trick trigger try tumble turn
twist uncover understand understood unravel unveil update urge use utilize validate vary venture visit vow wait wake
walk want warn wash watch weaken wear weigh whisper widen win wish woke won wonder wore work worn worry wrap write
written wrote yell yield
"""
# Adjectives and the like may open a concept ('social media') but are none alone and close none. So may first names
# ('barack obama'): who buys apples is not what a row is about.
_ADJECTIVES = """
absolute abstract academic active aggressive alien alternate amazing american ancient angry annual artificial asian
attractive average awesome awkward big bitter black blue bold brave brief bright brilliant british broad brown
bustling busy calm canadian casual central cheap chief chinese civil classic clever cold common competitive complex
comprehensive confident constant contemporary cool corporate correct crazy creative crucial cruel cultural cute
daily dark dead deep delicate democratic dense digital dirty distant diverse domestic dramatic dry dull eager early
east eastern economic efficient elderly electric electronic elegant empty environmental essential eternal european
ever-changing excellent exciting exotic expensive external extra extreme fair familiar fantastic fascinating fast
fat favorite federal fellow fierce financial fine flat foreign formal fragile free french frequent fresh friendly
funny future futuristic gentle genuine georgian german giant glad global golden grand gray green grey guilty happy
hard harsh healthy heavy heroic high higher historic holy honest hot huge human humble hungry ideal illegal
immediate immense impressive independent indian industrial inner innocent innovative intense interesting internal
intricate iranian iraqi israeli italian japanese joint korean large late latest lazy legal light liquid local lonely
long loose loud lovely low lower loyal lucky lush mad main major massive maximum mental mere mexican middle mild
military minimum minor moderate modern monthly moral mutual narrow native natural new noble normal north northeast
northern northwest odd official old online ordinary organic outer patient perfect permanent personal pink plain
pleasant polite poor popular precise pretty prime profound proud pure purple quiet rapid rare raw recent red regular
remote republican rich rigid romantic rough royal rural russian sad safe scary scientific secondary secret secure
selfish senior sensitive severe sexual shallow sharp shiny short sick silent silly silver sincere single sleepy
slight small smart smooth social soft solid south southeast southern southwest spanish spare spectacular spiritual
square standard steady steep straight strange strict strong stupid subtle sudden sufficient sweet swift tall tasty
temporary tender tense thick thin tight tiny tough toxic tragic ugly ultimate universal unknown unusual upper upset
urban urgent vague vast verbal vibrant vice violent virtual visual vital vivid warm weak wealthy weekly weird west
western wet white wild wise wooden wrong yellow
"""
_FIRST_NAMES = """
aaron abby adam alan albert alex alexander alice allison amanda amy andrea andrew andy angela ann anna anne anthony
ashley aubrey audrey austin bailey barbara ben benjamin beth betty bill billy bob bobby brad brandon brenda brian
brittany bruce caleb cameron carl carla carlos carol caroline casey catherine charles charlie charlotte chloe chris
christina christine christopher cindy claire connor craig cynthia dan daniel danny dave david dean debbie deborah
denise dennis derek diana diane donald donna doug douglas dylan ed eddie edward elena eli elijah elizabeth ella
ellen emily emma eric erica ethan eva evan evelyn fiona frank fred gabriel gary george gina grace greg hank hannah
harold harry heather helen henry howard ian isaac isabella ivan jack jackie jackson jacob jake james jamie jan jane
janet jason jay jean jeff jeffrey jen jennifer jenny jeremy jerry jesse jessica jill jim jimmy joan joe joey john
johnny jon jonathan jordan jose joseph josh joshua joyce juan judy julia julie justin karen kate kathy katie keith
kelly ken kendall kevin kim kyle larry laura lauren lee leo leslie lily linda lindsay lisa logan lou louis lucas
lucy luke lynn madison marcus margaret maria marie mark marta martha martin mary mason matt matthew megan melissa
mia michael michelle mike molly nancy natalie nathan nicholas nick nicole nina noah nora olivia oscar pam pamela pat
patricia patrick paul peggy peter phil quinn rachel ralph randy raymond rebecca remy richard rick riley rob robert
robin roger ron rose roy russell ruth ryan sally sam samantha samuel sandra sandy sara sarah scott sean sharon shawn
sheila skylar sophia sophie stacy stan stephanie stephen steve steven sue susan sydney tammy tara taylor ted teresa
terry thomas tim timmy tina toby todd tom tommy tony tracy tyler vanessa victor victoria vincent walter wendy wesley
william zach zoe
"""
_ADJECTIVE = re.compile(r"..+(?:ful|ous|less|able|ible|ical|ional|[^e]ed)").fullmatch
_NOUNS = "bed bible bloodshed cable hundred professional seabed syllable table vegetable watershed"
_NOUNS_IN_LY = "ally anomaly assembly belly bully butterfly family fly italy jelly lily monopoly rally"
_NOUNS_IN_ING = """
accounting advertising banking boxing building camping cleaning clothing computing cooking cycling dancing drawing
dressing earring encoding engineering farming fishing funding gambling gardening gathering grading hiking housing
hunting icing king knitting lightning lighting marketing mining offspring packaging painting parenting parking
pricing programming pudding ring sailing shipping shopping singing skiing sorting spring stuffing surfing swimming
teaching training viking volunteering wedding wing wrestling writing
"""

MAX_SHARE = 0.05
FEW_ROWS = 20
"""What more than this share of the rows hold, and more than so many rows, is no concept."""
REPEATED_SHARE = 0.003
REPEATED_WORDS = 3
"""A sentence of so many words that more than this share of the rows hold, and more than FEW_ROWS, is a template's."""
MAX_LETTERS = 30
"""A longer word bounds an n-gram: a hash, an address, an encoded picture."""

# Scripts written without spaces: there, one character is one word.
_UNSPACED = "[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"
_unspaced = re.compile(_UNSPACED)
_GLUED = re.compile(f"(?<={_UNSPACED}) (?={_UNSPACED})")
# Python's \w leaves out combining marks, of which the words of many scripts are full.
_MARKS = "".join(mark for mark in map(chr, range(0x300, 0x1C00)) if unicodedata.category(mark)[0] == "M")
_LETTERS = rf"[\w{_MARKS}]+"
_tokens = re.compile(rf"c\+\+|[cf]#|{_LETTERS}(?:[-'’]{_LETTERS})*|[^\s\w]+").findall
_ascii_tokens = re.compile(r"c\+\+|[cf]#|\w+(?:[-']\w+)*|[^\s\w]+", re.ASCII).findall
_sentences = re.compile(r"[.?!:]\s+|\n").split

_BLOCK = 1 << 20  # tokens that are looked at together
_BUCKETS = 1 << 24
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, eq=False)
class Concepts:
    """The concepts of every row.

    Parameters
    ----------
    ids : Ragged of int64
        Each row's concepts by number, the best C-value first, all different.
    names : ndarray of str, shape (k,)
        In lower case. The concept of the best C-value is number 0; equal ones are in the order of their names.
    c_values : ndarray, float64, shape (k,)
        In rows, times the logarithm of a number of words; above 0.
    rows : ndarray, int64, shape (k,)
        How many rows' text has the concept, whether or not it is among those that they list.
    """

    ids: Ragged
    names: NDArray[np.str_]
    c_values: NDArray[np.float64]
    rows: Ints


def extract_concepts(
    texts: Iterable[str], *, min_rows: int = 2, max_words: int = 3, per_row: int = 5
) -> Concepts:
    """Find what each text is about.

    *Published*: C-value(a) = log2(|a|) (f(a) - mean of f(b) over the longer candidates b that contain a), for a of |a|
    words and frequency f (Frantzi, Ananiadou & Mima 2000, "Automatic recognition of multi-word terms: the C-value/
    NC-value method"). *Ours*: log2(|a| + 1), so that single words have a value; f counts rows, so that a word repeated
    in one row counts once; candidates are n-grams between stop words and punctuation instead of tagged noun phrases,
    whose last word is no adjective, participle or first name; b has at most ``max_words`` + 1 words; concepts are of at
    most 5 % of the rows (or 20); values above 0; sentences that 0.3 % of the rows (and more than 20) share word by word
    are a template's and not read. Of a row's concepts none is contained in another.

    Parameters
    ----------
    texts : iterable of str
        One a row; read once.
    min_rows : int
        The fewest rows that hold a concept; at least 1.
    max_words : int
        The most words of a concept, 1 to 5. In scripts without spaces a character is a word, but no concept alone.
    per_row : int
        The most concepts of a row; at least 1.

    Returns
    -------
    Concepts
        Only those that some row lists are numbered. The order of the texts matters for the order of ``ids`` alone.

    Raises
    ------
    DataPrunerError
        When a parameter is out of its range or a text is no string.

    Notes
    -----
    The stop words are English. An n-gram has enough rows only if both its parts one word shorter have; and before
    n-grams are counted exactly, their hashes are, in an array of fixed size (Park, Chen & Yu 1995, "An effective
    hash-based algorithm for mining association rules"). Memory holds 8 bytes a token, the words, and the n-grams that
    are likely to have ``min_rows`` rows, never all n-grams.
    """
    for name, value, highest in (
        ("min_rows", min_rows, None),
        ("max_words", max_words, 5),
        ("per_row", per_row, None),
    ):
        if value < 1 or (highest is not None and value > highest):
            limit = "at least 1" if highest is None else f"from 1 to {highest}"
            raise DataPrunerError(f"{name} must be {limit}, not {value}")
    corpus = _read(texts)
    return _extract(corpus, min_rows, max_words, per_row, min(_BUCKETS, 1 + 8 * len(corpus.tokens)))


# Words ------------------------------------------------------------------------------------------------------------


def _inflected(verbs: str) -> Iterator[str]:
    """Give the regular forms of verbs; in doubt too many."""
    for verb in verbs.split():
        stem = verb.removesuffix("e")
        ied = verb[:-1] + "i" if verb.endswith("y") else verb
        yield from (
            verb,
            verb + "s",
            verb + "es",
            ied + "es",
            ied + "ed",
            stem + "ed",
            stem + "ing",
            verb + "ing",
        )
        yield from (verb + verb[-1] + "ed", verb + verb[-1] + "ing")


_STOP_WORDS = frozenset([*_FUNCTION_WORDS.split(), *_BOILERPLATE.split(), *_inflected(_VERBS)])
_OPENERS = frozenset([*_ADJECTIVES.split(), *_FIRST_NAMES.split()])
_NO_ADJECTIVES, _NO_ADVERBS, _NO_VERBS = (
    frozenset(nouns.split()) for nouns in (_NOUNS, _NOUNS_IN_LY, _NOUNS_IN_ING)
)


def _bounds(word: str) -> bool:
    """Whether an n-gram ends before this word: a stop word, a letter, a number, an adverb, or no word at all."""
    if word in _STOP_WORDS or len(word) > MAX_LETTERS or (len(word) == 1 and not _unspaced.match(word)):
        return True
    if word.endswith("ly") and len(word) > 3 and word not in _NO_ADVERBS:
        return True
    return not any(map(str.isalpha, word))


def _closes(word: str) -> bool:
    """Whether a concept may end in this word."""
    return word not in _OPENERS and not word[0].isdigit() and (word in _NO_ADJECTIVES or not _ADJECTIVE(word))


def _stands_alone(word: str) -> bool:
    """Whether a word that may close a concept is one by itself."""
    return len(word) > 1 and (word in _NO_VERBS or not word.endswith("ing"))


class _Vocabulary(dict[str, int]):
    """Numbers words as they come; -1 stands for everything that bounds an n-gram."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def __missing__(self, token: str) -> int:
        word = token.replace("’", "'").removesuffix("'s").strip("_")
        if _bounds(word):
            number = -1
        elif word == token:
            number = len(self.words)
            self.words.append(word)
        else:
            number = self[word]
        # Different numbers and symbols may be millions: long ones are not remembered.
        if number >= 0 or len(token) < 4 or token in _STOP_WORDS:
            self[token] = number
        return number


class _Corpus(NamedTuple):
    """Token numbers of all rows, -1 at a boundary and after every sentence; where the rows start; the words."""

    tokens: NDArray[np.int32]
    starts: Ints
    words: list[str]


def _read(texts: Iterable[str]) -> _Corpus:
    """Turn texts into numbers; the texts themselves are let go."""
    vocabulary, tokens, starts = _Vocabulary(), array("i"), array("q", [0])
    hashes, ends = array("Q"), array("q", [0])
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataPrunerError(
                f"row {row} is of type {type(text).__name__}, not a text; pass one string a row"
            )
        split, lower = _ascii_tokens, text.lower()
        if not text.isascii():
            split = _tokens
            lower = _unspaced.sub(r" \g<0> ", unicodedata.normalize("NFC", text).lower())
        for sentence in _sentences(lower):
            found = split(sentence)
            tokens.extend([vocabulary[token] for token in found])
            tokens.append(-1)
            ends.append(len(tokens))
            if len(found) < REPEATED_WORDS:
                hashes.append(0)
            else:
                hashes.append(xxh3_64_intdigest(sentence.strip().encode("utf-8", "surrogatepass")) | 1)
        starts.append(len(tokens))
    numbers, first = np.array(tokens, dtype=np.int32), np.array(starts, dtype=np.int64)
    _drop_repeated(numbers, np.array(hashes, dtype=np.uint64), np.array(ends, dtype=np.int64), first)
    return _Corpus(numbers, first, vocabulary.words)


def _drop_repeated(tokens: NDArray[np.int32], hashes: NDArray[np.uint64], ends: Ints, starts: Ints) -> None:
    """Make boundaries of the sentences that many rows share."""
    n = len(starts) - 1
    different, sentence = np.unique(hashes, return_inverse=True)
    rows = np.searchsorted(starts, ends[:-1], side="right") - 1
    which, times = _runs(_distinct(sentence * max(1, n) + rows) // max(1, n))
    repeated = np.zeros(len(different), dtype=bool)
    repeated[which] = times > max(FEW_ROWS, REPEATED_SHARE * n)
    repeated &= different > 0
    tokens[np.repeat(repeated[sentence], np.diff(ends))] = -1


# Counting ---------------------------------------------------------------------------------------------------------


class _Level(NamedTuple):
    """The frequent n-grams of one length, numbered: ``left << 32 | right``, their parts one word shorter; and rows."""

    keys: Ints
    rows: Ints


def _count(corpus: _Corpus, floor: int, longest: int, buckets: int | None) -> list[_Level]:
    """Find the n-grams of at least ``floor`` rows, for every length; plainly without ``buckets``, which is equal."""
    levels = [_words(corpus, floor)]
    grams = np.full(
        len(corpus.words) + 1, -1, dtype=np.int32
    )  # the last entry is what the boundaries' -1 reads
    grams[levels[0].keys] = np.arange(len(levels[0].keys))
    grams = grams[corpus.tokens]
    while len(levels) < longest and len(levels[-1].keys):
        likely = None if buckets is None else _likely(corpus, grams, floor, buckets)
        levels.append(_frequent(corpus, grams, floor, likely))
        for first, end in _blocks(corpus):
            part = slice(corpus.starts[first], corpus.starts[end])
            grams[part] = _find(levels[-1].keys, _longer(grams[part]))
    return levels


def _words(corpus: _Corpus, floor: int) -> _Level:
    """Find the words of at least ``floor`` rows."""
    counts = np.zeros(len(corpus.words), dtype=np.int64)
    for first, end in _blocks(corpus):
        words, rows = _there(corpus, corpus.tokens, first, end)
        found, times = _runs(_distinct(words * (end - first) + rows) // (end - first))
        counts[found] += times
    keys = np.flatnonzero(counts >= floor)
    return _Level(keys, counts[keys])


def _likely(corpus: _Corpus, grams: NDArray[np.int32], floor: int, buckets: int) -> Flags:
    """Mark the hashes of n-grams one word longer than ``grams`` that occur often enough: no other is frequent."""
    counts = np.zeros(buckets, dtype=np.int32)
    for first, end in _blocks(corpus):
        np.add.at(counts, _bucket(_there(corpus, grams, first, end, longer=True)[0], buckets), 1)
    return counts >= floor


def _frequent(corpus: _Corpus, grams: NDArray[np.int32], floor: int, likely: Flags | None) -> _Level:
    """Find the n-grams one word longer than ``grams`` of at least ``floor`` rows."""
    parts, pending = [_Level(np.empty(0, np.int64), np.empty(0, np.int64))], 0
    for first, end in _blocks(corpus):
        keys, rows = _there(corpus, grams, first, end, longer=True)
        some = slice(None) if likely is None else likely[_bucket(keys, len(likely))]
        different, places = np.unique(keys[some], return_inverse=True)
        pairs = _distinct(places * (end - first) + rows[some])
        parts.append(_Level(different, _runs(pairs // (end - first))[1]))
        pending += len(different)
        if pending > max(_BLOCK, len(parts[0].keys)):
            parts, pending = [_merged(parts)], 0
    level = _merged(parts)
    return _Level(level.keys[level.rows >= floor], level.rows[level.rows >= floor])


def _there(
    corpus: _Corpus, grams: NDArray[np.int32], first: int, end: int, longer: bool = False
) -> tuple[Ints, Ints]:
    """Give the n-grams of some rows (or the keys of those one word longer), and their rows counted from ``first``."""
    starts = corpus.starts[first : end + 1]
    part = grams[starts[0] : starts[-1]]
    found = _longer(part) if longer else part.astype(np.int64)
    places = np.flatnonzero(found >= 0)
    return found[places], np.repeat(np.arange(end - first), np.diff(starts))[places]


def _blocks(corpus: _Corpus) -> Iterator[tuple[int, int]]:
    """Go through ranges of rows that are looked at together."""
    first, n = 0, len(corpus.starts) - 1
    while first < n:
        end = int(np.searchsorted(corpus.starts, corpus.starts[first] + _BLOCK, side="right")) - 1
        yield first, min(n, max(end, first + 1))
        first = min(n, max(end, first + 1))


def _longer(grams: NDArray[np.int32]) -> Ints:
    """Join each n-gram with the one that starts a word later; -1 where one of them is missing."""
    after = np.append(grams[1:], np.int32(-1))
    return np.where((grams < 0) | (after < 0), -1, grams.astype(np.int64) << 32 | after)


def _find(keys: Ints, wanted: Ints) -> NDArray[np.int32]:
    """Look keys up in an ascending array; -1 where one is missing or -1 itself."""
    out = np.full(len(wanted), -1, dtype=np.int32)
    asked = np.flatnonzero(wanted >= 0)
    if len(keys) and len(asked):
        places = np.minimum(np.searchsorted(keys, wanted[asked]), len(keys) - 1)
        out[asked] = np.where(keys[places] == wanted[asked], places, -1)
    return out


def _bucket(keys: Ints, buckets: int) -> Ints:
    """Hash keys into [0, buckets)."""
    mixed = keys.astype(np.uint64) * _MULTIPLIER >> np.uint64(32)
    return (mixed % np.uint64(buckets)).astype(np.int64)


def _distinct(values: Ints) -> Ints:
    """Give the different values, ascending; numpy's own way through a hash table takes several times as long."""
    ordered = np.sort(values)
    return ordered[np.diff(ordered, prepend=-1) > 0]


def _runs(ascending: Ints) -> tuple[Ints, Ints]:
    """Give the different values of an ascending array of numbers from 0, and how often each occurs."""
    heads = np.flatnonzero(np.diff(ascending, prepend=-1))
    return ascending[heads], np.diff(heads, append=len(ascending))


def _merged(parts: list[_Level]) -> _Level:
    """Add up counts of blocks."""
    keys, places = np.unique(np.concatenate([part.keys for part in parts]), return_inverse=True)
    rows = np.bincount(places, np.concatenate([part.rows for part in parts]), minlength=len(keys))
    return _Level(keys, rows.astype(np.int64))


# Ranking ----------------------------------------------------------------------------------------------------------


def _parts(levels: list[_Level], length: int) -> list[Ints]:
    """Give the parts of all n-grams of ``length`` + 1 words: an array (k, parts) for 1, 2, ... words."""
    out = [np.arange(len(levels[length].keys))[:, None]]
    for level in levels[length:0:-1]:
        keys = level.keys[out[0]]
        out.insert(0, np.column_stack([keys >> 32, keys[:, -1] & 0xFFFFFFFF]))
    return out


def _c_values(levels: list[_Level], candidate: list[Flags]) -> list[NDArray[np.float64]]:
    """C-value of every frequent n-gram; only candidates count as longer ones."""
    total = [np.zeros(len(level.keys)) for level in levels]
    count = [np.zeros(len(level.keys)) for level in levels]
    for longer in range(1, len(levels)):
        for shorter, parts in enumerate(_parts(levels, longer)[:-1]):
            ordered = np.sort(parts, axis=1)
            # A part may occur twice in one longer candidate, which is one all the same.
            once = (np.diff(ordered, axis=1, prepend=-1) > 0) & candidate[longer][:, None]
            weights = np.repeat(levels[longer].rows, once.sum(axis=1))
            total[shorter] += np.bincount(ordered[once], weights, minlength=len(total[shorter]))
            count[shorter] += np.bincount(ordered[once], minlength=len(total[shorter]))
    return [
        np.log2(length + 2) * (level.rows - total[length] / np.maximum(1, count[length]))
        for length, level in enumerate(levels)
    ]


def _candidates(words: list[str], levels: list[_Level], ceiling: float) -> list[Flags]:
    """Mark the n-grams that may be concepts: by their last word, and by their rows."""
    closes = np.array([_closes(word) for word in words], dtype=bool)
    alone = np.array([_stands_alone(word) for word in words], dtype=bool)
    last = [_parts(levels, length)[0][:, -1] for length in range(len(levels))]
    return [
        closes[end] & (alone[end] if length == 0 else True) & (level.rows <= ceiling)
        for length, (end, level) in enumerate(zip(last, levels, strict=True))
    ]


def _extract(corpus: _Corpus, floor: int, max_words: int, per_row: int, buckets: int | None) -> Concepts:
    """Count, rank, and let each row take its best."""
    n = len(corpus.starts) - 1
    levels = _count(corpus, floor, max_words + 1, buckets)
    words = [corpus.words[key] for key in levels[0].keys.tolist()]
    candidate = _candidates(words, levels, max(MAX_SHARE * n, FEW_ROWS))
    values = _c_values(levels, candidate)
    levels, values = levels[:max_words], values[:max_words]
    chosen = [np.flatnonzero(flags & (value > 0)) for flags, value in zip(candidate, values, strict=False)]
    names = [
        _GLUED.sub("", " ".join([words[part] for part in parts]))
        for length, which in enumerate(chosen)
        for parts in _parts(levels, length)[0][which].tolist()
    ]
    c_values = np.concatenate([value[which] for value, which in zip(values, chosen, strict=True)])
    rows = np.concatenate([level.rows[which] for level, which in zip(levels, chosen, strict=True)])
    order = np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)
    order = order[np.argsort(-c_values[order], kind="stable")]
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    places, start = [], 0
    for level, which in zip(levels, chosen, strict=True):
        places.append(np.full(len(level.keys), -1))
        places[-1][which] = rank[start : start + len(which)]
        start += len(which)
    lengths, listed = _listed(corpus, levels, places, per_row)
    used, ids = np.unique(listed, return_inverse=True)
    held = order[used]
    texts = np.array([names[number] for number in held.tolist()], dtype=np.str_)
    return Concepts(Ragged(ids.astype(np.int64), offsets_of(lengths)), texts, c_values[held], rows[held])


def _listed(corpus: _Corpus, levels: list[_Level], places: list[Ints], per_row: int) -> tuple[Ints, Ints]:
    """Give each row's best candidates that no longer candidate of the row contains: how many, and their places."""
    k = max(1, sum(len(level.keys) for level in levels))
    inside = [_parts(levels, length)[:-1] for length in range(len(levels))]
    lengths, listed = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for first, end in _blocks(corpus):
        starts = corpus.starts[first : end + 1]
        rows = np.repeat(np.arange(end - first), np.diff(starts))
        grams = _find(levels[0].keys, corpus.tokens[starts[0] : starts[-1]].astype(np.int64))
        present, hidden = [], [np.empty(0, np.int64)]
        for length, level in enumerate(levels):
            grams = _find(level.keys, _longer(grams)) if length else grams
            there = np.flatnonzero(grams >= 0)
            there = there[places[length][grams[there]] >= 0]
            row, found = rows[there] * k, grams[there]
            present.append(row + places[length][found])
            for shorter, parts in enumerate(inside[length]):
                inner = places[shorter][parts[found]]
                hidden.append((row[:, None] + inner)[inner >= 0])
        shown, below = _distinct(np.concatenate(present)), _distinct(np.concatenate(hidden))
        kept = shown[_find(below, shown) < 0]
        row = kept // k
        best = np.arange(len(kept)) - np.searchsorted(row, row) < per_row
        lengths.append(np.bincount(row[best], minlength=end - first))
        listed.append(kept[best] % k)
    return np.concatenate(lengths), np.concatenate(listed)
