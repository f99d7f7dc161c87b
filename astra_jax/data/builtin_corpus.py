"""Training text that the project makes itself, for when no real corpus can be found.

One small engine expands two hand-written grammars: play-like verse and name-like words. All the
vocabulary and all the patterns are our own. The play uses the 65 characters that the usual small
Shakespeare file has, so vocabulary and model sizes stay what they would be with that file, and it
is regular at several levels (spelling, agreement, verse lines, who speaks to whom) so that a model
finds something to learn early and something to learn late.
"""

import functools
import random
import re
from collections.abc import Iterator, Sequence

PLAY_CHARACTERS = 350_000
NAME_COUNT = 24_000

Rules = dict[str, tuple[str, ...]]

# How a noble person speaks to a common one; everybody else says the slot itself: "you have".
THOU = {
    "you": "thee",
    "your": "thy",
    "you_are": "thou art",
    "you_have": "thou hast",
    "you_shall": "thou shalt",
    "do_you": "dost thou",
}

# Every noun has a regular plural and no verb doubles a letter, so the endings can be derived.
PLAY_WORDS = """
thing = arrow banner bargain battle bell blade bridge candle castle chain cradle cloud crown dream
thing = feather flame flower garland garment hammer harp harvest island jewel key kingdom lantern
thing = letter mask mirror mountain needle oath orchard painting pillow promise puzzle quarrel
thing = ransom riddle ring river root sail scar secret shadow song sorrow star storm tale tempest
thing = thorn tower treaty vessel voyage wall window winter wound
person = beggar brother captive cousin daughter dreamer enemy exile father fool friend guest hunter
person = judge liar lover merchant minstrel mother neighbour orphan pilgrim prisoner rebel rival
person = sailor servant shepherd sister soldier stranger traitor tyrant villain weaver widow
deed = accuse banish betray challenge comfort condemn deceive defend embrace envy flatter follow
deed = fear honour love obey pardon pity praise punish question remember rescue scorn serve summon
deed = trust vex warn welcome
task = abandon borrow bury conceal covet destroy discover examine forfeit guard inherit measure
task = mend offer recover refuse return squander surrender touch treasure value watch
state = crumble falter flourish languish linger perish quiver rejoice slumber tarry tremble vanish
state = wander waver whisper wither
virtue = beauty courage envy fortune gold grief honour hope justice malice mercy patience pride
virtue = quiet reason silence slumber truth vengeance wisdom youth
place = abbey chamber chapel city court desert field forest garden harbour marsh meadow market
place = cloister quarry stable tavern valley village woodland
quality = ancient bitter bold brave bright broken crooked cruel dark eager empty faithful false
quality = foolish frozen gentle golden grave grey half-forgotten hollow humble idle jealous lonely
quality = lucky mild moon-pale noble patient plain proud quick quiet restless rough ruthless
quality = sea-worn silent simple solemn stubborn sweet tender treacherous vain weary well-beloved
quality = wild wise wretched young zealous
"""

# One symbol a line, its options between bars; a repeated option is likelier, and further lines of a
# symbol add to its options. A slash ends a line of verse. Symbols without a line here are words or,
# like the hearer and the one who is absent, are bound anew in each scene or speech.
PLAY_GRAMMAR = """
lord = King Maddock | Prince Zephan | Duke of Farrowby | Earl of Norrick | Lord Jessamund
lord = Captain Brask | Bishop of Greyhythe | Sir Uthwin | Lord Vexley | Quorviston
lady = Queen Quillane | Princess Yolind | Lady Ximara | Duchess of Pellworth | Jazeveth | Kezzaly
commoner = First Gentleman | Second Gentleman | First Soldier | Second Soldier | Messenger
commoner = Ferryman | Innkeeper | Gardener | Third Fiddler | Old Steward
manner = alone | boldly | by chance | by stealth | dearly | for ever | gently | in vain | no more
manner = openly | so well | too late | too soon | like a <quality> <person> | without <virtue>
time = to-night | to-day | at break of day | before the dawn | at harvest time | in winter
time = at noon | by candle-light | on holy days | after the feast | upon the hour
where = in the <place> | beside the <place> | beyond the <quality> <place> | near <whose> <place>
where = o'er the <place> | by <whose> <quality> <thing> | through the <quality> <place>
then = | <time> | in the <place>
tail = | | <manner> | <time> | <where>
whose = my | my | <your> | <your> | our | <his> | the <person>'s | <absent>'s
one = the <thing> | the <quality> <thing> | this <quality> <thing> | <whose> <thing>
one = <whose> <quality> <thing> | a <quality> <thing> | that <thing> | the <theme> | <whose> <theme>
many = the <things> | these <quality> <things> | <whose> <things> | <whose> <quality> <things>
many = those <things> | a thousand <things> | all <whose> <things>
somebody = <absent> | <absent> | the <person> | the <quality> <person> | my <quality> <person>
somebody = <his> own <person> | no <person> | a <quality> <person> | <whose> <person>
folk = the <persons> | our <persons> | all <persons> | <quality> <persons> | those <persons>
other = <absent> | <him> | the <person> | <folk> | <whose> <person> | the <quality> <person>
whom = <other> | <other> | <other> | <other> | <you>
what = <one> | <one> | <many> | <virtue> | <whose> <virtue>
clause = <somebody> <deeds> <whom> <tail> | <somebody> <tasks> <what> <tail>
clause = <folk> <deed> <whom> <tail> | <folk> <task> <what> <tail> | I <task> <what> <tail>
clause = <somebody> has <deeded> <whom> <tail> | <folk> have <tasked> <what> <tail>
clause = I <deed> <whom> <tail> | I <deeded> <whom> <tail> | I have <tasked> <what> <tail>
clause = <you_have> <deeded> <other> <tail> | <you_shall> <task> <what> <tail>
clause = we will <deed> <whom> <tail> | <he> <tasked> <what> <tail> | I never <deeded> <whom>
clause = <one> <states> <tail> | <many> <state> <tail> | <somebody> will <task> <what> <tail>
clause = <one> is <quality> <then> | <many> are <quality> <then> | <he> is <quality> <then>
clause = there is no <virtue> in <one> | <virtue> <states> <tail>
clause = <you_are> <quality> and <quality> | <virtue> is <quality> <where> | I <state> <where>
clause = <one> was <tasked> <where> | <many> were <tasked> <tail> | <absent> was <deeded> <tail>
command = <deed> <other> | <task> <what> | do not <deed> <other> | <task> not <one> | look to <one>
call = <hearer> | <sir>
cry = alas | peace | fie | 'tis <quality> | O <quality> <thing> | O <virtue> | O <quality> <absent>
sentence = <clause>. | <clause>. | <clause>. | <clause>, <call>. | <command>, <call>.
sentence = <cry>! <command>. | <cry>! <cry>! <command>! | <command>; <command>. | <cry>! <clause>.
sentence = <clause>, /and <clause>. | <clause>, /but <clause>. | <clause>; /yet <clause>.
sentence = if <clause>, /then <clause>. | when <clause>, /<clause>. | <clause>, /for <clause>.
sentence = though <clause>, /and <clause>, /<clause>. | <clause>: /<clause>; /<clause>.
sentence = <one> that <somebody> <tasked> <tail> /is <quality> now, and <states> <where>.
sentence = <many> that <folk> <tasked> <tail> /are <quality> now, and <state> <where>.
sentence = the <person> that <deeds> <whom> <tail> /<tasks> <what>, and so <deeds> <whom>.
sentence = as <quality> as <one> <where>, /so <quality> is <virtue> to <folk>.
sentence = 'tis <quality> to <deed> <whom>, /but <quality> to <task> <what> <tail>.
sentence = I'll <deed> <other> ere <somebody> <tasks> <one>. | so <quality> is <one>, <call>!
sentence = hear me, <call>: <clause>. | mark this, <call>: <clause>.
sentence = where is <one> that <somebody> <tasked>? | who <tasked> <one> <where>, <call>?
sentence = <do_you> <deed> <other> <tail>? | why <do_you> <task> <what>? | is <one> <quality>?
sentence = did <somebody> <deed> <whom> <tail>? | what <thing> is this that <states> <where>?
sentence = do <folk> <deed> <whom> <tail>? | shall I <task> <what>, <call>? | <reckoning>
reckoning = the <person> gave 3 crowns for <one>. | <his> ledger says: for bread, $ 3, <call>.
reckoning = the Bread & Salt is full to-night, <call>. | we meet at the Thistle & Crown, <call>.
reckoning = I lost $ 3 at dice with <absent>. | for 3 long nights I <tasked> <one>.
greeting = how now, <hearer>! | well met, <hearer>. | <hearer>, a word. | good morrow, <sir>.
greeting = what news, <hearer>? | speak on, <sir>. | enough, <hearer>! | I thank you, <sir>.
answer = ay, <sir>. | no, <hearer>; <clause>. | ay, <hearer>, and <clause>. | I cannot tell, <sir>.
answer = never, <sir>! | ask <absent>, <sir>, for I know not. | why, <clause>. | not so, <hearer>.
"""

NAME_GRAMMAR = """
name = <start><end> | <start><end> | <start><middle><end> | <start><middle><end>
name = <start><middle><end> | <start><middle><end> | <start><middle><middle><end>
start = <onset><vowel> | <onset><vowel> | <onset><vowel> | <onset><vowel> | <plain> | <rare>
middle = <single><plain> | <single><plain> | <single><plain> | <coda><stop><plain> | <single><vowel>
end = <common>a | <common>a | <common>a | <common>e | <common>ie | <common>y | <common>o | <stop>y
end = <coda> | <coda> | <coda> | <coda>ie | <single>in | <single>on | <single>en | <single>el
end = <coda><stop>er | <coda><stop>on | <coda><stop>a | <common>ia | <common>yn | th | x | <stop>is
onset = <single> | <single> | <single> | <single> | w | y | <cluster>
cluster = br | ch | cl | dr | fr | gr | sh | st | th | tr
single = <common> | <common> | <common> | <common> | <stop> | <stop> | <stop> | <soft>
soft = f | h | j | v | v | z
common = l | l | m | m | n | n | r | r | s | d | t
stop = b | c | d | d | g | k | k | m | p | t
coda = l | n | n | r | s
vowel = <plain> | <plain> | <plain> | <plain> | <plain> | <plain> | ai | ea | ee
plain = a | a | a | a | e | e | e | i | i | o | o | u
rare = qua | que | qui | xa | ky | ly | wy | sy | jo | jay | may | o | e | i
"""

SLOT = re.compile(r"<(\w+)>")


@functools.cache
def play() -> str:
    """Writes a long play: speaker lines, speeches of up to eight lines, blank lines between.

    The text is the same on every call, every platform and every Python version, and it holds
    exactly 65 distinct characters.

    Returns:
        A little more than `PLAY_CHARACTERS` characters, ending with one newline.
    """
    rng = random.Random(1611)
    rules = _parse(PLAY_GRAMMAR, "|") | _word_rules()
    text = ""
    while len(text) < PLAY_CHARACTERS:
        text += "".join(f"{speech}\n\n" for speech in _scene(rules, rng))
    return text.removesuffix("\n")


@functools.cache
def names() -> str:
    """Makes up pronounceable names, some of them more than once, as in a register of births.

    The list is the same on every call, every platform and every Python version.

    Returns:
        `NAME_COUNT` lower-case names, one a line, with no newline after the last.
    """
    rng = random.Random(1707)
    rules = _parse(NAME_GRAMMAR, "|")
    return "\n".join(_expand("<name>", rules, rng) for _ in range(NAME_COUNT))


def _parse(grammar: str, separator: str | None) -> Rules:
    rules: Rules = {}
    for line in grammar.strip().splitlines():
        symbol, options = line.split(" = ")
        rules[symbol] = rules.get(symbol, ()) + tuple(map(str.strip, options.split(separator)))
    return rules


def _word_rules() -> Rules:
    rules = _parse(PLAY_WORDS, None)
    for symbol in ("thing", "person", "deed", "task", "state"):
        rules[f"{symbol}s"] = _inflect(rules[symbol], "s")
    for symbol in ("deed", "task"):
        rules[f"{symbol}ed"] = _inflect(rules[symbol], "d")
    return rules


def _inflect(words: Sequence[str], ending: str) -> tuple[str, ...]:
    """Spells the regular endings: trusts, trusted; watches; loves, loved; envies, envied."""

    def spell(word: str) -> str:
        if word[-1] == "y" and word[-2] not in "aeiou":
            return f"{word[:-1]}ie{ending}"
        hissing = word.endswith(("s", "x", "ch", "sh"))
        bare = word[-1] == "e" or (ending == "s" and not hissing)
        return word + ending if bare else f"{word}e{ending}"

    return tuple(map(spell, words))


def _pick(options: Sequence[str], rng: random.Random) -> str:
    # Python promises that `random()` draws the same numbers from the same seed in every version;
    # it promises nothing of the kind for `choice`, `choices`, `sample` and `shuffle`.
    return options[int(rng.random() * len(options))]


def _expand(text: str, rules: Rules, rng: random.Random) -> str:
    return SLOT.sub(lambda slot: _expand(_pick(rules[slot[1]], rng), rules, rng), text)


def _scene(rules: Rules, rng: random.Random) -> Iterator[str]:
    """Lets a few people talk in turn, each to the one who spoke before, of someone who is away."""
    nobles, commoners = rules["lord"] + rules["lady"], rules["commoner"]
    cast: list[str] = []
    for _ in range(3 + int(rng.random() * 3)):
        cast.append(_pick([who for who in nobles + commoners if who not in cast], rng))
    absent = _pick([who for who in nobles if who not in cast], rng)
    rules = rules | _absence(absent, rules) | {"theme": (_pick(rules["thing"], rng),)}
    hearer, speech = cast[0], ""
    for _ in range(6 + int(rng.random() * 20)):
        speaker = _pick([who for who in cast if who != hearer], rng)
        opening = "answer" if speech.endswith("?") else "greeting"
        speech = _speech(opening, rules | _address(speaker, hearer, rules), rng)
        yield f"{speaker if speaker in commoners else speaker.upper()}:\n{speech}"
        hearer = speaker


def _absence(absent: str, rules: Rules) -> Rules:
    he, him, his = ("she", "her", "her") if absent in rules["lady"] else ("he", "him", "his")
    return {"absent": (absent.split()[-1],), "he": (he,), "him": (him,), "his": (his,)}


def _address(speaker: str, hearer: str, rules: Rules) -> Rules:
    name, commoners = hearer.split()[-1], rules["commoner"]
    familiar = hearer in commoners and speaker not in commoners
    address: Rules = {
        slot: (thou if familiar else slot.replace("_", " "),) for slot, thou in THOU.items()
    }
    if hearer in commoners:
        return address | {"hearer": (f"good {name.lower()}",), "sir": ("friend", "good fellow")}
    sir = ("madam", "my lady") if hearer in rules["lady"] else ("sir", "my lord")
    return address | {"hearer": (name,), "sir": sir}


def _speech(opening: str, rules: Rules, rng: random.Random) -> str:
    # A question is always answered; otherwise some speeches open with a greeting.
    opens = opening == "answer" or rng.random() < 0.3
    lines = [_verse_line(f"<{opening}>", rules, rng)] if opens else []
    # No sentence is longer than three lines, so a goal of six keeps a speech within eight.
    goal = 1 + int(rng.random() * 6)
    while len(lines) < goal:
        sentence = _pick(rules["sentence"], rng)
        lines += [_verse_line(part, rules, rng) for part in sentence.split("/")]
    return "\n".join(lines)


def _verse_line(pattern: str, rules: Rules, rng: random.Random) -> str:
    """Keeps the best of three attempts: near ten syllables, with no long word said twice."""

    def clumsiness(line: str) -> int:
        # Groups of vowels, less a silent final e, are close enough to syllables.
        syllables = len(re.findall(r"(?!e[ds]?\b)[aeiouy]+|\b[^\Waeiouy]*e\b", line.lower()))
        long_words = re.findall(r"\w{4,}", line)
        return abs(syllables - 10) + 4 * (len(long_words) - len(set(long_words)))

    line = min((_expand(pattern, rules, rng) for _ in range(3)), key=clumsiness)
    line = re.sub(r" +(?=[,.:;?! ]|$)", "", line.strip())
    line = re.sub(r"\ba (?=[aeiou])", "an ", line)
    return re.sub(r"(?:^|[.!?] )\W?[a-z]", lambda start: start[0].upper(), line)
