"""
Find the passages that speak of a question: BM25 over SQLite's full-text index, which comes with Python.

    store = Store()                     # in memory; Store("passages.db") keeps it on disk
    store.add([("apple-2023-7", "Net sales of iPhone rose ..."), ("jnj-2016-1A", "We are subject to ...")])
    store.search("How did iPhone sales do?", k=5)      # [("apple-2023-7", 4.1), ...], the best first

A passage scores for each word of the query that it holds: more for a rare word, less for each further time and in a
longer passage (Robertson and Zaragoza 2009, "The probabilistic relevance framework: BM25 and beyond"). SQLite gives a
word that more than half of the passages hold practically nothing, so such words are not looked up at all.
"""
import math
import re
import sqlite3
from collections import Counter

import numpy as np

MOST_WORDS = 128  # of a query; a longer one is asked by its most telling words


def words(text):
    """Lower-case words and numbers: what is indexed, and what of a query is looked up. Operators are no words."""
    return re.findall(r"[^\W_]+", text.lower())


class Store:
    """A table of passages. ValueError if this Python's SQLite has no FTS5, or `path` is no such store."""

    def __init__(self, path=":memory:"):
        try:
            self.db = sqlite3.connect(path)
            self.db.execute("CREATE VIRTUAL TABLE IF NOT EXISTS passages USING "
                            "fts5(id UNINDEXED, words, tokenize = 'unicode61 remove_diacritics 0')")
            self.db.execute("CREATE VIRTUAL TABLE IF NOT EXISTS temp.vocabulary USING fts5vocab(main, passages, row)")
            self.size = self.db.execute("SELECT count(id) FROM passages").fetchone()[0]
        except sqlite3.Error as e:
            why = ("this Python's sqlite3 was built without FTS5, which retrieval needs; use python.org's, conda's or "
                   "the distribution's Python" if "fts5" in str(e) else f"{path} is no store of passages ({e}); name "
                   "another file")
            raise ValueError(why) from None

    def add(self, passages):
        """Add (id, text) pairs; an id is a string or an integer, and the same one twice stands for two passages."""
        with self.db:  # one transaction: all of them or none
            rows = [(key, " ".join(words(text))) for key, text in passages]
            self.db.executemany("INSERT INTO passages VALUES (?, ?)", rows)
        self.size += len(rows)

    def search(self, query, k):
        """The k best (id, score) for a query, which may be any text; equal scores in the order of adding."""
        weight = {}
        for word, count in Counter(words(query)).items():
            found = self.db.execute("SELECT doc FROM vocabulary WHERE term = ?", (word,)).fetchone()
            if found:
                idf = math.log((self.size - found[0] + 0.5) / (found[0] + 0.5))
                weight[word] = (idf > 0, count * idf, word)
        telling = [w for w in weight if weight[w][0]] or [*weight]
        chosen = sorted(sorted(telling, key=weight.get, reverse=True)[:MOST_WORDS])
        if not chosen or k < 1:
            return []
        rows = self.db.execute("SELECT id, -bm25(passages) AS score FROM passages WHERE passages MATCH ? "
                               "ORDER BY score DESC, rowid LIMIT ?", (" OR ".join(f'"{w}"' for w in chosen), k))
        return [(key, float(score)) for key, score in rows]

    def close(self):
        self.db.close()


def bm25(queries, texts):
    """How well each of the texts matches each query: a float64 array (queries, texts), 0 where no word is shared."""
    store, found = Store(), np.zeros((len(queries), len(texts)))
    store.add(enumerate(texts))
    for row, query in zip(found, queries, strict=True):
        for i, score in store.search(query, len(texts)):
            row[i] = score
    store.close()
    return found
