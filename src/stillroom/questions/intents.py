"""A text task made by a program: what somebody wants of a bank's help desk, in twelve intents.

Intents are as frequent as Zipf's law has it, so that the rare ones are hard to come across by asking at random. A tenth of
the texts is ambiguous: it holds what is typical of two intents, and the label is the one it was meant as, which of the
two cannot be known from the text alone. As data they are `builtin:intents`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stillroom.rows import Array

AMBIGUOUS = 0.1
SECOND = 0.35
"""An ambiguous text is meant as the rarer of its two intents so often."""
EXPONENT = 1.0
TRIES = 100
ROWS = 4000
"""Of builtin:intents, made with seed 0."""

OPENINGS = (
    "", "", "", "", "hi ,", "hello ,", "good morning ,", "please help ,", "quick question :", "excuse me ,", "hey there ,",
    "sorry to bother you ,", "i hope you can help :", "not sure who to ask :",
)  # fmt: skip
ENDINGS = (
    "", "", "", "", "thanks", "thank you", "please advise", "it is urgent", "can you look into it ?", "what should i do ?",
    "this is the second time i write", "i have tried the app already", "i am travelling right now", "any idea ?",
)  # fmt: skip
SLOTS = {
    "time": (
        "today",
        "yesterday",
        "this morning",
        "last week",
        "on monday",
        "since friday",
        "two days ago",
        "last night",
    ),
    "place": (
        "the airport",
        "the supermarket",
        "a petrol station",
        "my hotel",
        "the station",
        "a shop abroad",
        "the market",
    ),
    "amount": ("20", "35", "50", "80", "120", "200", "250", "400", "750", "1000"),
    "person": ("my landlord", "my sister", "a friend", "my employer", "the tax office", "my son", "a colleague"),
    "country": ("spain", "japan", "norway", "brazil", "canada", "turkey", "kenya", "poland", "mexico", "india"),
    "card": ("card", "card", "card", "debit card", "bank card", "plastic", "visa"),
    "money": ("money", "money", "cash", "funds", "the sum", "{amount} pounds", "{amount} euros"),
    "send": ("sent", "transferred", "wired", "paid", "moved"),
    "shows": ("shows up", "appears", "is listed", "stands in my statement", "was booked"),
    "want": ("want", "would like", "need", "wish", "am trying"),
}
"""What stands for a word in braces."""
INTENTS: dict[str, str] = {
    "card_arrival": """
        my new {card} has not come yet / how long does a {card} take in the post / when will the replacement be delivered
        i ordered a {card} {time} and am still waiting for it / the letter with my {card} never reached me {time}
        is there a way to track the {card} you posted {time} / nothing was in the mailbox {time} , where is the {card}
        you promised me a {card} {time} / did you send the {card} to my old address in {country}
        can the new {card} be delivered to {country} / i moved {time} , will the {card} still find me
        the courier came {time} without it , when do you try again / no {card} in the mail {time}""",
    "card_lost": """
        i lost my {card} at {place} {time} / my {card} was stolen {time} / somebody took my wallet at {place}
        i can not find my {card} anywhere / i left my {card} in a machine at {place} / please block my {card} , it is gone
        freeze the {card} , i dropped it near {place} / a thief has my {card} since {time} / my purse vanished at {place}
        i think my {card} fell out of my pocket at {place} {time} / stop all payments , my bag was snatched in {country}
        the {card} is missing since {time}""",
    "transfer_pending": """
        my transfer to {person} is still pending / i {send} {amount} to {person} {time} and it has not arrived
        how long until what i {send} goes through / {person} has not received the {money} i {send} {time}
        why is the payment to {person} still processing / {person} says nothing came in {time}
        the {money} for {person} left my account {time} but never got there / it says on its way since {time}
        i {send} {money} to {country} {time} , when does it get there / the standing order to {person} did not go out {time}""",
    "charged_twice": """
        i was charged twice at {place} / the same payment of {amount} {shows} two times / {place} took {amount} twice {time}
        there is a double charge from {place} / a duplicate payment of {amount} {shows} {time}
        one purchase at {place} but it {shows} again {time} / i bought once at {place} and you took {amount} two times
        an identical {amount} from {place} {shows} a second time""",
    "cash_withdrawal": """
        the machine gave me no notes but took {amount} / a withdrawal of {amount} at {place} was declined
        how much may i take out in a day / the cash machine at {place} kept my {money} / the atm at {place} swallowed {amount}
        i got only part of the {amount} i withdrew {time} / no atm in {country} gives me {money}
        the dispenser at {place} jammed {time} with my {money} in it / what is the limit for notes from a machine""",
    "exchange_rate": """
        what rate do you use for payments in {country} / the rate for my purchase in {country} looks wrong
        how is the rate for foreign {money} set / i paid {amount} in {country} and got a bad conversion
        which currencies can i hold / the conversion at {place} {time} was not what you quoted
        can i swap {amount} at the rate of {time} / how many of the local currency do i get for {amount} in {country}""",
    "fee_question": """
        why was a fee of {amount} taken / is there a fee for using the {card} in {country} / there is an extra cost {time}
        what do you charge for a withdrawal abroad / how much does a transfer to {country} cost
        a surcharge of {amount} {shows} beside my payment at {place} / is the account free of monthly costs
        you took a commission of {amount} {time}""",
    "pin_problem": """
        i forgot my pin / my pin was not accepted at {place} / how do i change the pin of the {card}
        the pin is blocked after three tries {time} / where can i see my pin / i need a new pin before i go to {country}
        the four digits do not work at {place} / i typed the wrong code too often / the secret number was refused {time}""",
    "identity_check": """
        why do you need a photo of my passport / my identity could not be verified {time} / you rejected my selfie {time}
        the app does not accept the picture of my licence / how long does the identity check take
        which papers do you take as proof of who i am / is a residence permit from {country} enough to verify me
        i uploaded my documents {time} and still can not log in fully""",
    "close_account": """
        i {want} to close my account / how do i cancel everything with you / i {want} to leave you for another bank
        please delete my account and pay out the {amount} that is left / end my contract at the end of the month
        i am moving to {country} and no longer need the account / shut my profile down and erase my data""",
    "refund_status": """
        where is my refund from {place} / {place} says it gave {amount} back {time} but i see nothing
        how long do refunds take / i sent the goods back {time} and {want} my {amount} / the merchant in {country} owes me {money}
        can i cancel a payment to {place} and get the {money} back / i returned a purchase {time} , where is the credit""",
    "joint_account": """
        can {person} and i share one account / how do i add {person} to my account / i {want} a second {card} for {person}
        may {person} see what i spend / we {want} an account for two / is it possible to give {person} access
        how do {person} and i split one balance""",
}
"""Phrases of each intent, the most frequent intent first."""
PHRASES = {
    name: [one.strip() for one in text.replace("\n", " / ").split(" / ") if one.strip()]
    for name, text in INTENTS.items()
}
NAMES = tuple(INTENTS)
"""The intents, the most frequent first."""


def shares() -> Array:
    """How frequent each intent is [12]."""
    weight_C = 1 / np.arange(1, len(NAMES) + 1) ** EXPONENT
    return np.asarray(weight_C / weight_C.sum())


def intents(rows: int, seed: int) -> tuple[list[str], list[str]]:
    """So many different texts, and the intent of each. The same seed gives the same rows, and fewer of them the first."""
    rng = np.random.default_rng(seed)
    texts: dict[str, str] = {}
    while len(texts) < rows:
        first = int(rng.choice(len(NAMES), p=shares()))
        second = int(rng.integers(len(NAMES))) if rng.random() < AMBIGUOUS else first
        frequent, rare = sorted((first, second))
        label = NAMES[rare if rng.random() < SECOND else frequent] if frequent != rare else NAMES[first]
        for _ in range(TRIES):  # a text that is there already is written anew, so that no intent becomes rarer by it
            text = _text(rng, NAMES[first], NAMES[second])
            if text not in texts:
                texts[text] = label
                break
    return list(texts), list(texts.values())


def _text(rng: np.random.Generator, first: str, second: str) -> str:
    halves = [_phrase(rng, name) for name in dict.fromkeys((first, second))]
    body = " and ".join(halves if rng.random() < 0.5 else halves[::-1])
    return " ".join(filter(None, (_any(rng, OPENINGS), body, _any(rng, ENDINGS))))


def _phrase(rng: np.random.Generator, intent: str) -> str:
    text = _any(rng, PHRASES[intent])
    while "{" in text:
        before, _, rest = text.partition("{")
        slot, _, after = rest.partition("}")
        text = before + _any(rng, SLOTS[slot]) + after
    return text


def _any(rng: np.random.Generator, values: Sequence[str]) -> str:
    return values[int(rng.integers(len(values)))]
