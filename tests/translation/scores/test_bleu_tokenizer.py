import pytest

from dist_s2s.translation.scores.bleu_tokenizer import choose_bleu_tokenizer, is_installed


@pytest.mark.parametrize(
    ("text", "tokenizer"),
    [
        ("我爱自然语言处理", "zh"),
        ("他会说英语。ABC", "zh"),
        ("请打开 LibreOffice Writer 的文件菜单", "zh"),
        ("東京の大学で勉強します", "ja-mecab"),
        ("ファイルを開く", "ja-mecab"),
        ("나는 고양이를 보았다", "ko-mecab"),
        ("ฉันเห็นแมว", "char"),
        ("ຂ້ອຍເຫັນແມວ", "char"),
        ("ខ្ញុំឃើញឆ្មា", "char"),
        ("ကြောင်တစ်ကောင်ကိုမြင်တယ်", "char"),
        ("the cat sat", "13a"),
        ("мама мыла раму", "13a"),
        ("मैंने एक बिल्ली देखी", "13a"),
        ("שָׁלוֹם", "13a"),
        ("LibreOffice Writer and Calc 的", "13a"),
        ("123 … !", "13a"),
        ("", "13a"),
    ],
)
def test_the_script_decides(text: str, tokenizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dist_s2s.translation.scores.bleu_tokenizer.find_spec", lambda name: object())
    assert choose_bleu_tokenizer([text, ""]) == tokenizer


@pytest.mark.parametrize("text", ["東京の大学", "나는 고양이를"])
def test_without_mecab_by_characters(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dist_s2s.translation.scores.bleu_tokenizer.find_spec", lambda name: None)
    assert choose_bleu_tokenizer([text]) == "char"
    assert is_installed("zh")
    assert not is_installed("ko-mecab")


def test_all_references_are_counted() -> None:
    assert choose_bleu_tokenizer(["one two three"] * 3 + ["我看见了一只猫和一只狗"] * 2) == "zh"
    assert choose_bleu_tokenizer([]) == "13a"
