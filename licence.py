"""
Licences: what a model and the data it learns from permit, and where a checkpoint comes from.

    record = lineage("adapter", base="gpt2", base_directory=path, data_manifests={"data/fpb": manifest})
    write("runs/fpb", record)                       # lineage.json; in_words(record) says the same in a few lines

A model is taken to be as free as the least free of what it was made from: its base, that one's base, and all data.
Whether a text's licence binds what is trained on it is disputed; this errs on the owner's side. True is allowed, False
is not, None: nobody said. A licence is known by its name, however spelled; a remark beside it ("MIT, but ...") can take
permission away and never give it. None of this replaces reading them.
"""
import glob
import hashlib
import json
import os
import re
from collections import namedtuple

Terms = namedtuple("Terms", "name commercial redistribution note")  # redistribution: of what is made from it
UNKNOWN = Terms("no licence stated", None, None, "it does not say what it allows; ask its owner")
NC, ALIKE = "what is trained on it is for non-commercial use", "share alike: what is made from it keeps its licence"
CC = {"by": "", "nc": NC, "sa": ALIKE, "nd": "what is made from it may not be passed on"}
POLICY = "its policy on prohibited uses goes along with what is made from it"
KNOWN = [  # the words of a name and, where it matters, its first number -> commercial, redistribution, note
    (r"public domain|public record|us government works?|synthetic|cc 0|cc zero|unlicense|mit( no by)?|apache|isc|zlib|"
     r"bsd( simplified| new| revised| clause| clear)*|(odc )?pddl|odc by|open data commons by|afl|academic free|ofl|"
     r"artistic|bsl 1\.0|postgresql|(cdla|community data) permissive", True, True, ""),
    (r"(gnu )?([al]?gpl|((affero|lesser|library) )?general public|g?fdl|free documentation)|mpl|mozilla public|epl|"
     r"eupl|osl|(odc )?odbl|open (data commons open )?database|(cdla|community data) sharing", True, True, ALIKE),
    (r"gemma|((creativeml|bigscience|bigcode|bloom) )*(open)?rail[ +]*( m)?", True, True, POLICY),
    (r"(meta )?llama( community)? [2-9].*", True, True, "for up to 700 million users a month; " + POLICY),
    (r"(copyright .*)?all rights reserved", False, False, "nothing is allowed without its owner"),
    (r".*\b(nc|research|academic|education(al)?|personal|evaluation|no commercial|not (for )?commercial|amlr|mrl|mnpl|"
     r"non production|commons clause|busl|business source|bsl 1\.1)\b.*", False, None, NC)]
WORDS = {"creative commons": "cc", "attribution": "by", "non ?commercial": "nc", "share ?alike": "sa", "u s": "us",
         "no ?deriv(ative)?s?( works)?": "nd", "ccby": "cc by", "licen[cs]ed?|agreement|the|version|v|terms( of use)?|"
         "igo|international|unported|generic|universal|legal code|software|sec|edgar|filings?": ""}
LINK, END = r"(?:https?://)?(?:www\.)?", r"[^\s),\]]*"
PHRASES = {  # links to licences, and what would be taken apart wrongly
    rf"{LINK}creativecommons\.org/licenses/([a-z-]+)/?([\d.]*){END}": r", cc \1 \2,",
    rf"{LINK}creativecommons\.org/publicdomain/z{END}": ", cc0,", rf"{LINK}ai\.google\.dev/gemma{END}": ", gemma,",
    rf"{LINK}apache\.org/licenses/license-2{END}": ", Apache-2.0,",
    rf"{LINK}(?:opensource|spdx|gnu)\.org/licenses?/([a-z\d-]+(\.\d)*){END}": r", \1,",
    rf"https?://{END}|[ -]or[ -](any )?later( version)?|(?<=\d)(\+|-only)|\bwith \S+exception\S*": "",
    r"(research|academic|personal|non-?commercial)( use)? (and|or) commercial": "any"}


def named(text):
    """The Terms of one licence by its name; those of words that say nothing have no name, and no effect."""
    tokens = re.findall(r"\d+(?:\.\d+)*|[^\W\d_]+|[^\w\s.:'\"\[\]–—-]", re.sub(r"v(?=\d)", " ", text.lower()))
    number = next((t for t in tokens if t[0].isdigit()), "")
    words = " ".join(t for t in tokens if not t[0].isdigit())
    for spelling, word in WORDS.items():
        words = " ".join(re.sub(rf"\b({spelling})\b", word, words).split())
    kinds, name = {*words.split()}, text.strip().upper() if len(text.strip()) < 5 else " ".join(text.split())
    if kinds <= {"cc", *CC} and kinds & {*CC} and (len(kinds) > 1 or number):
        kinds = [k for k in CC if k in kinds]
        return Terms(f"CC {'-'.join(kinds).upper()} {number}".strip(), "nc" not in kinds, "nd" not in kinds,
                     "; ".join(CC[k] for k in kinds if CC[k]))
    found = next((t for p, *t in KNOWN if re.fullmatch(p, words) or re.fullmatch(p, f"{words} {number}")), UNKNOWN[1:])
    return Terms(name, *found) if words else Terms("", True, True, "")


def all_of(parts):
    """Terms that hold together: the strictest of each."""
    parts = list({p.name: p for p in parts if p.name}.values())
    strictest = [False if False in v else None if None in v else True for v in ([p[i] for p in parts] for i in (1, 2))]
    notes = dict.fromkeys(n for p in parts for n in p.note.split("; ") if n)
    return Terms(", ".join(p.name for p in parts), *strictest, "; ".join(notes)) if parts else UNKNOWN


def freedom(t):
    return sum({True: 2, None: 1, False: -1}[v] for v in (t.commercial, t.redistribution))


def terms(licence):
    """
    A licence as people write it (a name, a link, names joined by and, or, commas; None) or a list -> Terms(name,
    commercial, redistribution, note). Of names joined by "or" the freest counts, of all others the strictest.
    """
    text = licence if isinstance(licence, str) else ", ".join(map(str, licence or ()))
    for phrase, meaning in PHRASES.items():
        text = re.sub(phrase, meaning, text, flags=re.I)
    found = []
    for part in re.split(r"[,;()\n]| [-–] ", text):
        choices = [all_of(map(named, re.split(r"(?i)(?:^|\s)(?:and|with|plus)(?=\s|$)|[&/]", choice)))
                   for choice in re.split(r"(?i)(?:^|\s)or(?=\s|$)|\|+", part)]
        if choices := [c for c in choices if c != UNKNOWN]:
            found.append(max(choices, key=freedom)._replace(name=" or ".join(c.name for c in choices)))
    return all_of(found)


def of_model(directory):
    """The licence that a model directory states in its card's header, in LICENSE or in its lineage.json, or None."""
    papers, said = {}, []
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():  # a lone ckpt.pt has none of its own
        if re.fullmatch(r"(?i)readme\.md|licen[cs]e(\.\w+)?|copying", name):
            with open(os.path.join(directory, name), encoding="utf-8-sig", errors="replace") as f:
                papers[name.lower()] = f.read(1 << 16).strip()
    header = re.match(r"---[ \t]*\n(.*?)\n---", papers.pop("readme.md", ""), re.S)
    for key in ("license", "license_name"):  # inline, or a list on the lines below
        value = re.search(rf"(?mi)^{key}[ \t]*:(.*(?:\n[ \t]*-.*)*)", header[1]) if header else None
        lines = re.sub(r"(?m)(^|\s)#.*|^[ \t]*-", "", value[1]).splitlines() if value else []
        said.append(", ".join(v for line in lines if (v := line.strip(" \t'\"[]"))))
    for text in papers.values():
        said += re.findall(r"(?mi)^(?!\W*copyright)\W*(\w.*(?:\n\s*version [\d.]+)?)", text)[:1]
    said.append((read(directory) or {"verdict": {"name": None}})["verdict"]["name"])
    said = [s for s in said if s and s not in ("null", "~")]
    return next((s for s in said if s.lower() not in ("other", "unknown")), said[0] if said else None)


def of_data(directory, manifest):
    """The licences of a data directory: its own, those of its sources, and those that its documents state."""
    general = manifest.get("licence")
    sources = [s if isinstance(s, dict) else {} for s in manifest.get("sources") or [{}]]
    stated = [s.get("licence") or general for s in sources] + [general] * bool(general)
    stated = {s if isinstance(s, str) and s else ", ".join(s or ["not stated"]) for s in stated}
    for shard in manifest["splits"].get("train", {}).get("shards", ()):
        with open(os.path.join(directory, shard["name"].removesuffix(".npy") + ".docs.jsonl"), "rb") as f:
            stated |= {json.loads(m[1]) for line in f if (m := re.search(rb'"licence": ("(?:[^"\\]|\\.)*")', line))}
    return sorted(stated)


def lineage(out_kind, base=None, base_directory=None, data_manifests=(), base_sha256=None):
    """
    Where a checkpoint of this kind (model, adapter, ...) comes from, for JSON: its base, with the lineage of that, its
    data, {directory: manifest}, and the verdict over all, which says why, the strictest first.
    """
    record, found = dict(kind=out_kind, base=None, data=[]), []
    if base:
        place = str(base_directory or base)
        licence, before = of_model(place), read(place)
        record["base"] = dict(name=str(base), sha256=base_sha256, licence=licence, lineage=before)
        own = [Terms(*(before["verdict"][k] for k in Terms._fields))] if before else (
            # somebody's adapter: its card speaks for A and B, not for the weights under them
            [UNKNOWN] * os.path.exists(os.path.join(place, "adapter_config.json")))
        found.append((f"base {base}", all_of([terms(licence), *own])))
    for directory, manifest in dict(data_manifests).items():
        shards = [s.get("sha256", "") for split in manifest["splits"].values() for s in split.get("shards", [split])]
        record["data"].append(dict(
            name=str(directory), kind=manifest["kind"], task=(manifest.get("task") or {}).get("name"),
            sources=len(manifest.get("sources") or ()), licences=of_data(directory, manifest),
            fingerprint=hashlib.sha256(" ".join(shards).encode()).hexdigest()[:16]))  # as data.TokenData has it
        found.append((f"data {directory}", all_of(map(terms, record["data"][-1]["licences"]))))
    found.sort(key=lambda f: freedom(f[1]))
    record["verdict"] = all_of(t for _, t in found)._asdict() | dict(because=[
        f"{what}: {t.name[:80]}" + "; commercial use and redistribution allowed" * (freedom(t) == 4)
        + ", by its own account" * (freedom(t) == 4 and what.startswith("base ")) + f": {t.note}" * bool(t.note)
        for what, t in found])
    return record


def write(directory, lineage):
    with open(os.path.join(directory, "lineage.json"), "w") as f:
        json.dump(lineage, f, indent=1)


def read(directory):
    """The lineage of a checkpoint, or of a run directory's newest one, or None. ValueError if it is damaged."""
    steps = sorted(glob.glob(os.path.join(glob.escape(directory), "step-" + "[0-9]" * 8)))
    path = os.path.join(steps[-1] if steps else directory, "lineage.json")
    if not os.path.exists(path):
        return None
    try:
        with open(path) as f:
            record = json.load(f)
        if missing := {"because", *Terms._fields} - record["verdict"].keys():
            raise KeyError(*missing)
        return record
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ValueError(f"{path} is damaged ({type(e).__name__}: {e}); restore it, or delete it: then nobody knows "
                         "what the checkpoint was made from") from None


def in_words(lineage):
    """A lineage in one to four lines for the terminal."""
    total, why = lineage["verdict"], lineage["verdict"]["because"]
    lines = why if len(why) < 4 else [*why[:2], f"{len(why) - 2} more, none of them stricter, in lineage.json"]
    says = {True: "allowed", False: "not allowed", None: "not known to be allowed"}
    return lines + [f"together: commercial use {says[total['commercial']]}, redistribution "
                    f"{says[total['redistribution']]}"] * (len(why) > 1)
