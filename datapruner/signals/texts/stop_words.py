"""Which English words bound a concept, which may close one, and which may be one alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

from datapruner.words import is_unspaced

# All lists are ours and English. The function words of another language bound nothing, but being in too many rows
# they are no concepts either.
FUNCTION_WORDS = """
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

MAX_LETTERS = 30
"""A longer word bounds an n-gram: a hash, an address, an encoded picture."""


def _inflected(verbs: str) -> Iterator[str]:
    """Give the regular forms of verbs; in doubt too many."""
    for verb in verbs.split():
        stem = verb.removesuffix("e")
        ied = verb[:-1] + "i" if verb.endswith("y") else verb
        double = verb + verb[-1]
        yield from (verb, verb + "s", verb + "es", verb + "ing", ied + "es", ied + "ed")
        yield from (stem + "ed", stem + "ing", double + "ed", double + "ing")


STOP_WORDS = frozenset([*FUNCTION_WORDS.split(), *_BOILERPLATE.split(), *_inflected(_VERBS)])
_OPENERS = frozenset([*_ADJECTIVES.split(), *_FIRST_NAMES.split()])
_NO_ADJECTIVES, _NO_ADVERBS, _NO_VERBS = (
    frozenset(nouns.split()) for nouns in (_NOUNS, _NOUNS_IN_LY, _NOUNS_IN_ING)
)


def bounds(word: str) -> bool:
    """Whether an n-gram ends before this word: a stop word, a letter, a number, an adverb, or no word at all."""
    if word in STOP_WORDS or len(word) > MAX_LETTERS or (len(word) == 1 and not is_unspaced(word)):
        return True
    if word.endswith("ly") and len(word) > 3 and word not in _NO_ADVERBS:
        return True
    return not any(map(str.isalpha, word))


def closes(word: str) -> bool:
    """Whether a concept may end in this word."""
    return word not in _OPENERS and not word[0].isdigit() and (word in _NO_ADJECTIVES or not _ADJECTIVE(word))


def stands_alone(word: str) -> bool:
    """Whether a word that may close a concept is one by itself."""
    return len(word) > 1 and not is_unspaced(word) and (word in _NO_VERBS or not word.endswith("ing"))
