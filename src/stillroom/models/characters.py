"""A tokenizer of single bytes, so of characters where the text is ASCII: for small new networks that count digits.

Every text has tokens, none is unknown, and no two digits melt into one. The marks of a thought and `####`, which stands
before a final answer, are one token each, and so are those of the chat template. This file knows no model.
"""

from __future__ import annotations

from typing import Any

NAME = "characters"
"""What a recipe says in place of a reference to a tokenizer."""
MARKS = ("<think>", "</think>", "####")
"""Text that is one token; what a teacher writes around its thought, and before its answer."""
PADDING, END, USER, ASSISTANT = "<|pad|>", "<|endoftext|>", "<|user|>", "<|assistant|>"
TEMPLATE = (
    "{% for message in messages %}"
    f"{{{{ '{ASSISTANT}' if message['role'] == 'assistant' else '{USER}' }}}}"
    "{{ message['content'] }}"
    f"{{% if message['role'] == 'assistant' %}}{{{{ '{END}' }}}}{{% endif %}}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ '{ASSISTANT}' }}}}{{% endif %}}"
)


def characters() -> Any:
    """The tokenizer, made anew; it is the same each time. Needs the packages tokenizers and transformers."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = [PADDING, END, USER, ASSISTANT]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: place for place, letter in enumerate([*special, *alphabet])}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    made.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in MARKS])
    found: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=made, pad_token=PADDING, eos_token=END
    )
    found.chat_template = TEMPLATE
    return found
