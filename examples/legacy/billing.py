"""The billing of a shop, as it was found: it blocks, prints, and nobody dares to touch it."""

import sqlite3
import time
import urllib.request


def exchange_rate(url):
    """What the bank's server says a euro is worth."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        return float(answer.read())


def charge_all(path, month, pause=0.1):
    """Charge each bill of a month that is open; how many they were, and what they come to."""
    database = sqlite3.connect(path, timeout=10)
    bills = database.execute("SELECT id, cents FROM bills WHERE month = ? AND NOT charged", (month,)).fetchall()
    for number, cents in bills:
        time.sleep(pause)  # the bank is slow
        with database:
            database.execute("UPDATE bills SET charged = 1 WHERE id = ?", (number,))
        print("charged", number, cents)
    database.close()
    return {"bills": len(bills), "cents": sum(cents for _, cents in bills)}


def statement(customer, cents, months, rate=0.005):
    """What somebody owes after so many months, with interest by the day. Slow: it computes."""
    for _ in range(months):
        for _ in range(30):
            cents += cents * rate / 30
    return f"{customer} owes {cents / 100:.2f}"
