"""How well near-duplicates are found among service messages whose copies are known, and how fast.

The set is made here, always the same: messages in English, German and Chinese, a third of them with one to three copies
of which 1 to 20 % of the words (Chinese: characters) are replaced, deleted, inserted or swapped. What comes from the
same message belongs together.
"""

from __future__ import annotations

import platform
import random
import re
import time
from collections import Counter
from collections.abc import Hashable, Iterable

import msgspec

from upstack.inference.clusters import Clusters

_SEED = 20_240_601
_BASES = 1_000  # messages of each language
_COPIED = 1 / 3  # share of them that has copies
_COPIES = (1, 3)
_EDITED = (0.01, 0.20)  # share of a copy's words that is edited

_COMMA, _STOP, _ASKED = "\uff0c", "\u3002", "\uff1f"  # Chinese punctuation
_KINDS = ("swap", "replace", "delete", "insert")
_AROUND = ("question", "fact", "wish", "aside")  # kinds of sentences that stand around what happened
_SLOT = re.compile(r"\{(\w+)\}")


class Result(msgspec.Struct, frozen=True):
    """Over pairs of texts: of those in one cluster, how many belong together, and the other way round."""

    precision: float
    recall: float
    docs_per_s: float
    docs: int


class Labelled(msgspec.Struct, frozen=True):
    """A text, the message it comes from, and the share of its words that was edited: 0 for the message itself."""

    text: str
    base: int
    language: str
    edited: float


def main() -> None:
    """Measure, print a table."""
    found = measure()
    print(f"{platform.machine()}, Python {platform.python_version()}, one core\n")
    print("| documents | precision | recall | documents a second |\n|---|---|---|---|")
    print(f"| {found.docs:,} | {found.precision:.3f} | {found.recall:.3f} | {found.docs_per_s:,.0f} |")


def measure() -> Result:
    """Cluster the texts one after the other."""
    texts = labelled()
    Clusters().add("the extra is loaded by the first one")
    clusters = Clusters()
    start = time.process_time()
    for each in texts:
        clusters.add(each.text)
    seconds = time.process_time() - start
    roots = [clusters.root(index) for index in range(len(texts))]
    precision, recall = scores(roots, [each.base for each in texts])
    return Result(precision, recall, len(texts) / seconds, len(texts))


def scores(roots: Iterable[int], bases: Iterable[int]) -> tuple[float, float]:
    """Pairwise precision and recall."""
    both = list(zip(roots, bases, strict=True))
    right = _pairs(both)
    joined, true = (_pairs(each[at] for each in both) for at in range(2))
    return (right / joined if joined else 1.0), (right / true if true else 1.0)


def _pairs(labels: Iterable[Hashable]) -> int:
    return sum(count * (count - 1) // 2 for count in Counter(labels).values())


# ------------------------------------------------------------------------------------------------------------- the set


def labelled(seed: int = _SEED) -> list[Labelled]:
    """The messages and their copies, shuffled."""
    draw = random.Random(seed)
    texts: list[Labelled] = []
    bases = 0
    for language, phrases in _PHRASES.items():
        slots = {name: listed.split("; ") for name, listed in phrases.items()}
        units = [unit for name in ("object", "fault", "though", "wish", "place") for unit in _words(slots[name])]
        if language == "zh":
            units = [unit for unit in "".join(units) if unit.isalpha() and not unit.isascii()]
        written: set[str] = set()
        while len(written) < _BASES:
            text = _message(draw, language, slots)
            if text in written:
                continue
            written.add(text)
            texts.append(Labelled(text, bases, language, 0.0))
            if draw.random() < _COPIED:
                for _ in range(draw.randint(*_COPIES)):
                    copy, edited = _edit(draw, text, language, units)
                    texts.append(Labelled(copy, bases, language, edited))
            bases += 1
    draw.shuffle(texts)
    return texts


def _words(phrases: Iterable[str]) -> list[str]:
    return [word for phrase in phrases for word in phrase.split() if "{" not in word]


def _message(draw: random.Random, language: str, slots: dict[str, list[str]]) -> str:
    """What happened, and sentences around it until it is long enough; of 8 to 60 words, 20 to 120 characters."""
    chinese = language == "zh"
    least, most = (20, 120) if chinese else (8, 60)
    wanted = draw.randint(least, most * 3 // 4)
    while True:
        sentences: list[str] = []
        kinds = ["report", *draw.sample(_AROUND, len(_AROUND))]
        while kinds and _length(sentences, chinese=chinese) < wanted:
            kind = kinds.pop(0)
            sentence = _fill(draw, draw.choice(slots[kind]), slots)
            mark = ("?", _ASKED) if kind == "question" else (".", _STOP)
            sentences.append(f"{sentence[0].upper()}{sentence[1:]}{mark[chinese]}")
        draw.shuffle(sentences)
        if draw.random() < 0.4:
            sentences.insert(0, draw.choice(slots["greeting"]))
        if least <= _length(sentences, chinese=chinese) <= most:
            return "".join(sentences).replace(", ", _COMMA) if chinese else " ".join(sentences)


def _length(sentences: list[str], *, chinese: bool) -> int:
    return sum(len(each if chinese else each.split()) for each in sentences)


def _fill(draw: random.Random, template: str, slots: dict[str, list[str]]) -> str:
    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name in _NUMBERS:
            return str(draw.randint(*_NUMBERS[name]))
        return _fill(draw, draw.choice(slots[name]), slots)

    return _SLOT.sub(value, template)


def _edit(draw: random.Random, text: str, language: str, units: list[str]) -> tuple[str, float]:
    """A copy, and the share of its words that was edited; a swap edits two."""
    blank = "" if language == "zh" else " "
    words = text.split(" ") if blank else list(text)
    edits = max(1, int(len(words) * draw.uniform(*_EDITED)))
    edited = edits / len(words)
    kinds: list[str] = []
    while (left := edits - len(kinds) - kinds.count("swap")) > 0:
        kinds.append(draw.choice(_KINDS if left > 1 else _KINDS[1:]))
    places = draw.sample(range(len(words) - 1), len(kinds))
    for at, kind in zip(sorted(places, reverse=True), kinds, strict=True):  # from the end: those before stay
        if kind == "swap":  # with the next: the last word is no place
            words[at], words[at + 1] = words[at + 1], words[at]
        elif kind == "delete":
            del words[at]
        elif kind == "insert":
            words.insert(at, draw.choice(units))
        else:
            words[at] = draw.choice(units)
    return blank.join(words), edited


# -------------------------------------------------------------------------------------------------------------- phrases

_NUMBERS = {
    "order": (100_000, 999_999),
    "amount": (5, 900),
    "day": (1, 28),
    "few": (2, 12),
    "minutes": (10, 55),
    "size": (32, 48),
    "year": (2015, 2024),
}

_ENGLISH = {
    "greeting": "Hello,; Hi there,; Dear support team,; Good morning,; Good evening,; To whom it may concern,",
    "report": "{when} the {kind} {object} {fault} {though}; the {object} I bought from you {when} {fault}; {though},"
    " the {kind} {object} {fault}; my {relative} says the {object} {fault} {when}; it seems that our {kind} {object}"
    " {fault} {though}; {fault}, that is what the {object} from {place} did {when}; we unpacked the {kind} {object}"
    " {when} and it {fault}; {relative} noticed {when} that our {object} {fault}; sadly, {though}, that {kind}"
    " {object} {fault}; purchased {when} in {place}: a {kind} {object} which {fault}; nobody at {place} believed me,"
    " yet the {object} {fault} {though}; every {kind} {object} you sent us {fault} {though}; {name} looked at our"
    " {object} {when}, and it still {fault}; once again one {object} {fault}, {though}",
    "question": "can you tell me whether the {kind} {object} also {ability}; how long does a {service} from {place}"
    " take if I pay by {method}; where do I find the {paper} for my {object}; is it possible to {action} {when}; why"
    " was I charged {amount} euros for the {service}; who can {action} while I am in {place}; does the {service}"
    " cover a {object} that {fault}; what do I need to {action} with a {paper} from {year}; would you mind telling"
    " {name} how to {action}; which {paper} proves that {service} was due {when}; am I allowed to {action} without"
    " any {paper}; has {name} in {place} already arranged the {service}; could a {kind} {object} be sent to {place}"
    " instead; what happens to my {amount} euros if you {action}; should {relative} bring the {paper} along to"
    " {place}; since when does a {service} require {method}",
    "fact": "order {order} was paid by {method}; the {paper} shows {amount} euros instead of {few} hundred; {name} at"
    " your {place} branch promised a {service} {when}; the parcel was left with {name} in {place}; I ordered size"
    " {size} and received size {few}; tracking says {place} since {day} {month}; my contract {order} runs until"
    " {month} {year}; I waited {minutes} minutes on the phone before {name} picked up; reference {order} appears"
    " nowhere on your {paper}; {amount} euros vanished {when}; somebody called {name} signed at {hour} in {place};"
    " chat agent {name} closed ticket {order} {though}; payment via {method} bounced {when}; {place} received parcel"
    " {order} half open; between {day} and {month} there were {few} failed visits; model {size} carries serial"
    " {order}",
    "wish": "please {action} before {day} {month}; I would rather {action} than wait for another {service}; kindly"
    " send the {paper} to {place}; I expect a {service} by {weekday}; if nothing happens I will {action}; just"
    " {action} and refund the {amount} euros; we want to exchange it for a {kind} {object}; could someone {action}"
    " today; I insist that you {action}; let {name} {action} for us; give {relative} some {service} as compensation;"
    " arrange {service} around {hour}, ideally near {place}; forget the {service}, simply {action}; it would be great"
    " to {action} and to get my {paper}; transfer {amount} euros through {method}",
    "aside": "my {relative} needs it for a trip to {place}; we have been customers since {year}; the weather in"
    " {place} did not help either; I work shifts and can only talk on {weekday} evenings; {name} from next door had"
    " the same with a {object}; by the way your {service} page is hard to read; it was a gift from my {relative} in"
    " {month}; at our {place} flat nothing else ever broke; frankly, competitors in {place} answered within {few}"
    " hours; {relative} recommended your brand back in {year}; thanks to {name} for staying friendly; photos of this"
    " {object} are attached; anyone reachable after {hour} will do; both kids cried about their {object}; reviews"
    " from {year} mentioned identical trouble",
    "kind": "red; foldable; second-hand; cordless; leather; compact; waterproof; refurbished; white; heavy-duty;"
    " wooden; stainless; rechargeable; limited; padded; silent; oversized; grey; vintage; portable; organic; striped",
    "object": "coffee machine; washing machine; winter jacket; router; headset; bicycle lamp; office chair;"
    " dishwasher; rice cooker; laptop sleeve; running shoes; garden hose; baby monitor; electric kettle; phone case;"
    " travel bag; desk lamp; smart watch; drill; mattress; curtain rail; keyboard; vacuum cleaner; camera lens;"
    " toaster; tent; bookshelf; hair dryer; lawn mower; printer; air purifier; sofa cover; chess set; rucksack; bread"
    " knife; monitor",
    "fault": "stopped charging; arrived with a cracked lid; makes a loud rattling noise; never left the warehouse;"
    " smells of burnt plastic; leaks water on the floor; will not pair with anything; came in the wrong colour; turns"
    " itself off; is missing two screws; shows error E{few}; got lost in transit; tripped the fuse; tore at the seam;"
    " lost all its settings; overheats quickly; has a scratched display; wobbles badly; was delivered twice; blinks"
    " and does nothing; refuses to open; fell apart; is stuck at customs; freezes during updates; drains the battery",
    "though": "although I followed the manual; even after a full reset; as soon as I plugged it in; without any"
    " warning; while nobody was at home; right out of the box; despite the extended warranty; whenever it rains;"
    " after only {few} weeks; with both adapters; in spite of three repairs; since the last update; on the first try;"
    " no matter what we attempt; unlike the one in the shop; just as guests arrived; during the night; for no"
    " apparent reason",
    "ability": "works with rechargeable batteries; fits a 60 centimetre shelf; can be washed at forty degrees; comes"
    " with a European plug; supports two users; folds flat; ships to {place}; carries a child safely; runs on solar"
    " power; qualifies for the student discount; survives frost; may be rented by the week",
    "service": "refund; home visit; express delivery; repair; gift card; return label; spare part; installation;"
    " callback; price match; loyalty bonus; warranty extension; disposal; pickup; newsletter; replacement",
    "action": "cancel the subscription; change the delivery address to {place}; add my {relative} to the account;"
    " send a technician; close the account for good; dispute the {amount} euro charge; reset my password; correct the"
    " spelling of {name}; move the appointment to {weekday}; unlock the card; delete my data; print a new label;"
    " upgrade to the family plan; collect the old {object}; return everything unopened; write to the ombudsman; pay"
    " in {few} instalments; leave a one star review; merge both profiles; freeze the membership until {month}",
    "paper": "invoice; receipt; warranty card; delivery note; user guide; tax form; customs declaration; credit note;"
    " confirmation; contract; safety sheet; voucher",
    "method": "credit card; bank transfer; PayPal; direct debit; gift voucher; cash on delivery; Apple Pay; cheque",
    "when": "yesterday; last {weekday}; on {day} {month}; {few} days ago; this morning; over the weekend; at noon;"
    " back in {month}; about {minutes} minutes ago; the day before yesterday; in early {month}; tonight",
    "weekday": "Monday; Tuesday; Wednesday; Thursday; Friday; Saturday; Sunday",
    "month": "January; February; March; April; May; June; July; August; September; October; November; December",
    "place": "Leeds; Bristol; Dublin; Glasgow; Cardiff; York; Norwich; Belfast; Oxford; Plymouth; Cork; Derby;"
    " Boston; Austin; Denver; Toronto; Perth; Auckland; Brighton; Inverness; Exeter; Swansea; Galway; Durham",
    "relative": "wife; husband; daughter; son; mother; father-in-law; flatmate; boss; neighbour; aunt; brother; cousin",
    "name": "Mr Clarke; Ms Osei; Mrs Whitfield; Tom; Priya; Mr Novak; Aisha; Mr Doyle; Hannah; Ms Romero; Greg; Yuki;"
    " Mrs Lindqvist; Callum; Dr Banerjee; Sofia",
    "hour": "eight; half past nine; ten thirty; quarter to twelve; two; three fifteen; five; six sharp; seven in the"
    " evening",
}

_GERMAN = {
    "greeting": "Guten Tag,; Hallo,; Sehr geehrte Damen und Herren,; Moin,; Liebes Team,; Guten Abend,",
    "report": "{when} hat {object} {fault} {though}; {object} aus {place} {when} bestellt, leider {fault}; {though}"
    " hat {object} bei uns {fault}; laut {name} hat {object} {when} {fault}; wie {relative} {when} bemerkte, ist"
    " {object} {kind} und hat {fault}; {object}, {kind}, {fault}, und das {though}; schon wieder {fault}: {object}"
    " von {when}; kaum ausgepackt, hat {object} {when} {fault}; unser Kauf von {when}, {object}, hat {though}"
    " {fault}; {relative} meldet: {object} hat {fault}, {though}; obwohl {kind}, hat {object} {when} {fault}; {name}"
    " prüfte es {when}, trotzdem hat {object} {fault}; geliefert nach {place} und {kind}, nur hat {object} {though}"
    " {fault}; zum dritten Mal {fault}, diesmal {object}; Reklamation: {object}, {kind}, gekauft in {place}, {fault}",
    "question": "können Sie {action} und mir {paper} schicken; wie lange dauert {service} nach {place} bei Zahlung"
    " per {method}; {object} ist da, aber wo finde ich {paper}; warum wurden {when} {amount} Euro abgebucht, war das"
    " {service}; ist {object} auch {kind} lieferbar; übernimmt {service} den Schaden, wenn {object} {fault} hat; darf"
    " {relative} für mich {action}; wer kann {when} in {place} {action}; weiß {name} schon, ob {service} nach {place}"
    " möglich ist; muss man dafür {paper} vorlegen oder einfach {action}; seit wann verlangt man für so etwas"
    " {method}; was geschieht mit meinen {amount} Euro; ließe sich {when} noch {action}; soll {relative} {paper} nach"
    " {place} mitbringen; wird {object} eigentlich {kind} ersetzt; hat {name} aus {place} inzwischen {service}"
    " veranlasst",
    "fact": "Bestellung {order} wurde per {method} bezahlt; berechnet wurden {amount} Euro statt {few} Euro; {name}"
    " aus der Filiale {place} sagte {when}, dass {service} kommt; das Paket liegt seit dem {day}. {month} in {place};"
    " bestellt war Größe {size}, gekommen ist Größe {few}; Vertrag {order} läuft bis {month} {year}; nach {minutes}"
    " Minuten in der Warteschleife meldete sich {name}; abgegeben wurde alles bei {name} in {place}; Vorgang {order}"
    " taucht nirgends auf; {amount} Euro verschwanden {when}; um {hour} unterschrieb jemand namens {name}; Ticket"
    " {order} schloss {name} kommentarlos; meine Zahlung per {method} platzte {when}; {place} erhielt Sendung {order}"
    " halb geöffnet; zwischen {day}. und Ende {month} scheiterten {few} Zustellungen; Modell {size} trägt"
    " Seriennummer {order}",
    "wish": "bitte {action}, spätestens am {day}. {month}; ich möchte lieber {action}, {service} hilft mir wenig;"
    " schicken Sie {paper} bitte nach {place}; bis {weekday} reicht mir {service}; sonst werde ich {action};"
    " überweisen Sie mir die {amount} Euro zurück; uns würde stattdessen {object} reichen, gern {kind}; könnte jemand"
    " heute noch {action}; ich bestehe darauf: {action}; lassen Sie {name} {action}; als Ausgleich wünscht {relative}"
    " sich {paper}; gegen {hour} passt {service} am besten; vergessen Sie {paper}, lieber gleich {action}; schön"
    " wäre, {action} zu können; {amount} Euro Nachlass per {method} wären fair",
    "aside": "{relative} braucht das für eine Reise nach {place}; wir sind seit {year} Kunden; wegen Schichtarbeit"
    " bin ich nur {weekday} abends erreichbar; {name} von nebenan erlebte dasselbe, nur war es {object}; übrigens ist"
    " {service} auf Ihrer Seite kaum zu finden; geschenkt hat es mir im {month} {relative}; das Wetter in {place} tat"
    " ein Übriges; in {place} ging früher nie etwas kaputt; ehrlich gesagt antwortet Ihre Konkurrenz binnen {few}"
    " Stunden; {relative} empfahl Ihre Marke bereits {year}; Dank an {name} fürs Freundlichbleiben; Fotos hängen an,"
    " {object} ist gut erkennbar; jeder Anruf nach {hour} erreicht mich; beide Kinder weinten, {object} war ihr"
    " Liebling; Bewertungen aus {year} nennen ähnlichen Ärger",
    "kind": "rot; faltbar; gebraucht; kabellos; gepolstert; wasserdicht; generalüberholt; weiß; besonders leise;"
    " gestreift; aus Holz; rostfrei; tragbar; in Übergröße; grau; ungeöffnet; sehr leicht; abschließbar; vegan;"
    " dreiteilig",
    "object": "die Kaffeemaschine; die Waschmaschine; die Winterjacke; der Router; das Headset; die Fahrradlampe; der"
    " Bürostuhl; die Spülmaschine; der Reiskocher; die Laptophülle; der Laufschuh; der Gartenschlauch; das Babyfon;"
    " der Wasserkocher; die Handyhülle; die Reisetasche; die Schreibtischlampe; die Armbanduhr; die Bohrmaschine; die"
    " Matratze; die Gardinenstange; die Tastatur; der Staubsauger; das Objektiv; der Toaster; das Zelt; das"
    " Bücherregal; der Föhn; der Rasenmäher; der Drucker; der Luftreiniger; der Sofabezug; das Schachspiel; der"
    " Rucksack; das Brotmesser",
    "fault": "den Geist aufgegeben; einen Riss im Deckel; laut geklappert; das Lager nie verlassen; nach verbranntem"
    " Plastik gerochen; Wasser verloren; sich nicht koppeln lassen; die falsche Farbe; sich ständig abgeschaltet;"
    " zwei fehlende Schrauben; Fehler E{few} gemeldet; die Sicherung ausgelöst; eine offene Naht; alle Einstellungen"
    " vergessen; sich stark erhitzt; ein zerkratztes Display; bedenklich gewackelt; nur noch geblinkt; sich nicht"
    " öffnen lassen; beim Zoll festgehangen; den Akku geleert; jedes Update verweigert; einen Kurzschluss verursacht;"
    " Öl gespuckt",
    "though": "trotz Anleitung; auch nach komplettem Zurücksetzen; gleich beim Einstecken; ganz ohne Vorwarnung;"
    " während niemand zu Hause war; direkt aus dem Karton; trotz verlängerter Garantie; immer bei Regen; nach nur"
    " {few} Wochen; mit beiden Netzteilen; ungeachtet dreier Reparaturen; seit der letzten Aktualisierung; beim"
    " ersten Versuch; mitten in der Nacht; kurz vor dem Besuch der Gäste; anders als im Laden gezeigt; aus"
    " unerfindlichen Gründen",
    "service": "die Erstattung; ein Hausbesuch; die Expresslieferung; eine Reparatur; der Gutschein; das"
    " Rücksendeetikett; ein Ersatzteil; die Montage; ein Rückruf; der Treuebonus; die Garantieverlängerung; die"
    " Entsorgung; eine Abholung; der Newsletter; der Umtausch; die Preisgarantie",
    "action": "das Abo kündigen; die Lieferadresse auf {place} ändern; {name} ins Konto eintragen; einen Techniker"
    " schicken; das Konto endgültig schließen; der Abbuchung von {amount} Euro widersprechen; das Passwort"
    " zurücksetzen; den Namen {name} berichtigen; den Termin auf {weekday} verlegen; die Karte entsperren; alle Daten"
    " löschen; ein neues Etikett drucken; in den Familientarif wechseln; das Altgerät abholen; alles ungeöffnet"
    " zurückgeben; die Verbraucherzentrale einschalten; in {few} Raten zahlen; beide Profile zusammenlegen; den"
    " Vertrag bis {month} ruhen lassen; eine schlechte Bewertung schreiben",
    "paper": "die Rechnung; den Kassenbon; die Garantiekarte; den Lieferschein; die Anleitung; die"
    " Steuerbescheinigung; die Zollerklärung; die Gutschrift; eine Bestätigung; den Vertrag; das Datenblatt; den"
    " Gutscheincode",
    "method": "Kreditkarte; Überweisung; PayPal; Lastschrift; Geschenkkarte; Nachnahme; Vorkasse; Rechnung",
    "when": "gestern; letzten {weekday}; am {day}. {month}; vor {few} Tagen; heute früh; übers Wochenende; mittags;"
    " im {month}; vor {minutes} Minuten; vorgestern; Anfang {month}; heute Nacht",
    "weekday": "Montag; Dienstag; Mittwoch; Donnerstag; Freitag; Samstag; Sonntag",
    "month": "Januar; Februar; März; April; Mai; Juni; Juli; August; September; Oktober; November; Dezember",
    "place": "Hamburg; Köln; Leipzig; Bremen; Graz; Zürich; Dresden; Kiel; Mainz; Erfurt; Rostock; Ulm; Linz; Bern;"
    " Potsdam; Kassel; Münster; Augsburg; Jena; Lübeck; Trier; Basel; Passau; Freiburg",
    "relative": "meine Frau; mein Mann; unsere Tochter; mein Sohn; die Mutter; der Schwiegervater; mein Mitbewohner;"
    " die Chefin; unser Nachbar; meine Tante; der Bruder; eine Cousine",
    "name": "Herr Krüger; Frau Yilmaz; Frau Petersen; Jonas; Mareike; Herr Nowak; Aylin; Herr Brandt; Svenja; Frau"
    " Ricci; Torben; Frau Öztürk; Herr Lehmann; Dr. Vogel; Annika; Herr Huber",
    "hour": "acht Uhr; halb zehn; zehn Uhr dreißig; Viertel vor zwölf; zwei; drei Uhr fünfzehn; fünf; Punkt sechs;"
    " sieben Uhr abends",
}

_CHINESE = {
    "greeting": "您好, ; 客服你好, ; 早上好, ; 打扰一下, ; 你们好, ; 在吗, ",
    "report": "{when}收到的{kind}{object}{fault}; {object}{though}{fault}; "
    "{when}{though}, {kind}{object}居然{fault}; {relative}说{object}{when}就{fault}了; "
    "从{place}寄来的{object}{fault}, {though}; {fault}, 说的就是{when}买的{object}; 刚拆开{kind}{object}就{fault}; "
    "我们家{object}{when}又{fault}; {relative}发现{object}{though}还{fault}; 在{place}买的{kind}{object}已经{fault}; "
    "{name}{when}检查过, 但{object}依旧{fault}; 第三次{fault}了, 这回轮到{object}; "
    "投诉一下{kind}{object}{fault}, {though}; {when}送来{object}一台, {fault}",
    "question": "请问{kind}{object}能不能{ability}; 用{method}付款的话寄到{place}要多久; "
    "{object}的{paper}在哪里下载; 为什么{when}扣了我{amount}元{service}费; 可以{when}帮我{action}吗; "
    "{object}如果{fault}算不算{service}范围; {relative}能代替我{action}吗; 想{action}还需要准备{paper}吗; "
    "{name}知不知道怎样{action}; 办理{service}必须出示{paper}么; 没有{paper}允许{action}吗; "
    "{place}的{name}是否已经安排{service}; 能换成{kind}{object}发往{place}吗; 那{amount}元到底退到哪里; "
    "要不要让{relative}带{paper}去{place}; 从何时开始{service}只收{method}",
    "fact": "订单{order}已经用{method}支付; {paper}上写着{amount}元而不是{few}百元; "
    "{place}门店的{name}{when}答应给我{service}; 物流从{month}{day}号起一直停在{place}; "
    "我拍的是{size}码结果发来{few}码; 合同{order}到{year}年{month}才结束; 电话里等了{minutes}分钟才轮到{name}接听; "
    "快递放在了{place}的{name}那里; 编号{order}怎么都查不到; {when}凭空少了{amount}元; {hour}有个叫{name}的签收; "
    "工单{order}被{name}直接关闭; {method}支付{when}失败; {place}收到的包裹{order}破损; {month}里{few}次派送没成功; "
    "型号{size}序列号{order}",
    "wish": "麻烦在{month}{day}号之前{action}; 我宁愿{action}也不想再等{service}; 请把{paper}邮寄到{place}; "
    "希望{weekday}之前安排{service}; 再不处理我就要{action}; 直接退还那{amount}元即可; 我们打算换成{kind}{object}; "
    "能否今天就{action}; 务必{action}; 让{name}替我们{action}; 给{relative}补偿一份{service}; "
    "{service}约在{hour}最好; 不要{service}了只求{action}; 最好先{action}再寄{paper}; 通过{method}转回{amount}元",
    "aside": "{relative}去{place}出差急着用; 我们从{year}年起就是老顾客; 平时倒班只有{weekday}晚上方便接电话; "
    "隔壁{name}买的{object}也遇到过; 顺便提一句你们{service}页面很难看懂; 这是{relative}{month}送的礼物; "
    "{place}最近天气又特别糟; {place}家里别的东西从没坏过; 说实话同行{few}小时内就回复; "
    "{relative}早在{year}年推荐你们品牌; 感谢{name}态度和气; {object}照片见附件; {hour}以后随时可以联系; "
    "两个孩子为{object}哭了; {year}年的评价也提到类似毛病",
    "kind": "红色; 折叠; 二手; 无线; 真皮; 迷你; 防水; 翻新; 白色; 加厚; 实木; 不锈钢; 充电式; 限量版; 静音; 大号; "
    "灰色; 复古; 便携; 条纹",
    "object": "咖啡机; 洗衣机; 羽绒服; WiFi 路由器; 耳机; 自行车灯; 办公椅; 洗碗机; 电饭煲; 电脑包; 跑步鞋; "
    "浇花水管; 婴儿监护器; 热水壶; 手机壳; 旅行箱; 台灯; Apple Watch 手表; 电钻; 床垫; 窗帘杆; 机械键盘; 吸尘器; "
    "相机镜头; 烤面包机; 帐篷; 书架; 吹风机; 割草机; 打印机; 空气净化器; 沙发套; 围棋; 双肩包; 菜刀; 显示器; "
    "USB 充电器",
    "fault": "充不进电; 盖子裂开; 噪音特别吵; 迟迟没有发货; 有股烧焦塑料味; 往地板漏水; 连不上任何设备; 颜色发错; "
    "自动关机; 少了两颗螺丝; 提示错误E{few}; 在半路丢失; 一开就跳闸; 缝线脱开; 设置全部清空; 发热严重; 屏幕布满划痕; "
    "摇晃不稳; 被重复投递; 指示灯乱闪; 怎么也打不开; 散架; 卡在海关; 升级时死机; 掉电飞快",
    "though": "虽然完全照说明书操作; 恢复出厂以后还是这样; 刚插上插座的时候; 事先毫无征兆; 趁家里没人; 拆封第一眼; "
    "明明买过延保; 每逢下雨; 才用{few}周; 换过两个适配器; 前后修过三次; 自从上次更新; 头一回使用; 不管怎么折腾; "
    "跟店里样品不同; 客人刚进门; 半夜里; 莫名其妙",
    "ability": "用充电电池; 放进六十厘米的柜子; 四十度机洗; 配欧标插头; 两个人同时登录; 平着收纳; 发到{place}; "
    "载小孩; 接太阳能板; 享受学生优惠; 耐得住零下低温; 按周租借",
    "service": "退款; 上门检查; 次日达; 维修; 礼品卡; 退货运单; 备用零件; 安装; 回电; 价格保护; 会员积分; 延长保修; "
    "旧机回收; 取件; 订阅邮件; 换新",
    "action": "取消自动续费; 把收货地址改到{place}; 给{relative}开通副卡; 派师傅过来; 永久注销账号; "
    "申诉那笔{amount}元扣款; 重设登录密码; 更正{name}的姓名; 把预约挪到{weekday}; 解冻银行卡; 删除个人资料; "
    "重新打印面单; 升级家庭套餐; 搬走旧的{object}; 原封不动全部退回; 找消费者协会投诉; 分{few}期付清; 给一星差评; "
    "合并两个账户; 暂停会籍到{month}",
    "paper": "发票; 小票; 保修卡; 送货单; 使用手册; 完税证明; 报关单; 退款凭证; 确认函; 合同原件; 安全说明; 优惠码",
    "method": "信用卡; 银行转账; 支付宝; 微信; 购物券; 货到付款; 花呗; 云闪付",
    "when": "昨天; 上个{weekday}; {month}{day}号; {few}天前; 今天早上; 周末两天; 中午; {month}那会儿; "
    "{minutes}分钟前; 前天; {month}初; 今晚",
    "weekday": "周一; 周二; 周三; 周四; 周五; 周六; 周日",
    "month": "一月; 二月; 三月; 四月; 五月; 六月; 七月; 八月; 九月; 十月; 十一月; 十二月",
    "place": "杭州; 成都; 西安; 厦门; 沈阳; 昆明; 青岛; 长沙; 南宁; 兰州; 武汉; 苏州; 贵阳; 大连; 福州; 合肥; 深圳; "
    "天津; 银川; 珠海; 洛阳; 无锡; 桂林; 拉萨",
    "relative": "我爱人; 我老公; 女儿; 儿子; 妈妈; 岳父; 室友; 领导; 邻居; 姑姑; 弟弟; 表姐",
    "name": "王师傅; 李女士; 陈经理; 小赵; 周阿姨; 刘先生; 孙姐; 老吴; 郑主管; 小林; 何医生; 马大哥; 谢小姐; 唐老师; "
    "小冯; 邓先生",
    "hour": "八点; 九点半; 十点三十; 十二点差一刻; 下午两点; 三点一刻; 五点; 六点整; 晚上七点",
}

_PHRASES = {"en": _ENGLISH, "de": _GERMAN, "zh": _CHINESE}


if __name__ == "__main__":
    main()
