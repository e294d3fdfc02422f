"""What a tokenizer reads: which words it knows, and how many tokens a text takes."""

import difflib
from functools import cached_property


class Words:
    """The words of a pipeline's tokenizer; name: whose they are, for messages; limit: of the tokens
    that the pipeline reads.
    """

    def __init__(self, tokenizer, name: str, limit: int = 77):
        self.tokenizer, self.name, self.limit = tokenizer, name, limit

    @property
    def max_tokens(self) -> int:
        """How many tokens a text may have, with the marks for its beginning and end."""
        # T5 has no limit of its own; the pipelines cut it
        return min(self.tokenizer.model_max_length, self.limit)

    @cached_property
    def known(self) -> tuple[str, ...]:
        """All words, where the tokenizer has a token for each."""
        tokenizer = self.tokenizer
        return tuple(sorted(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)))

    def unknown(self, text: str) -> list[str]:
        """The words of a text that the tokenizer has no tokens for."""
        tokenizer = self.tokenizer
        unknown, words = tokenizer.unk_token_id, text.split()
        # CLIP names an unknown token, but spells every word
        spells = unknown in (None, tokenizer.eos_token_id, tokenizer.pad_token_id)
        if spells or not words:
            return []
        tokens = tokenizer(words, add_special_tokens=False, verbose=False).input_ids
        return [word for word, of_word in zip(words, tokens, strict=True) if unknown in of_word]

    def check(self, text: str, prompt: str) -> str:
        """`text`. Raises ValueError, about the prompt that it stands for, for a word that is
        unknown, with the nearest, or too many tokens.
        """
        if unknown := self.unknown(text):
            near = difflib.get_close_matches(unknown[0], self.known, 3, 0.5)
            raise ValueError(
                f'the prompt "{prompt}" has a word that {self.name} never saw: "{unknown[0]}"; '
                f"nearest words that it knows: {', '.join(near or self.known[:8])}"
            )
        tokens = len(self.tokenizer(text, verbose=False).input_ids)
        if tokens > self.max_tokens:
            raise ValueError(
                f'the prompt "{prompt[:40]}..." has {tokens} tokens; {self.name} reads '
                f"{self.max_tokens} at most"
            )
        return text


def checked_prompt(prompt: str, example: str) -> str:
    """A prompt without the blanks around it. Raises TypeError for what is no string, ValueError
    for the empty one.
    """
    if not isinstance(prompt, str):
        raise TypeError(f"a prompt is a string such as {example!r}, got {type(prompt).__name__}")
    if not prompt.strip():
        raise ValueError(
            'the prompt is empty; give words such as "a dragon" '
            '(the empty prompt is the term "uncond")'
        )
    return prompt.strip()
