"""From sentences to translations: how they are searched for, demanded, drawn, listed, and joined from their pieces."""
