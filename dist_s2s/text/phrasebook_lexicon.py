"""The words of the phrasebook, as tables: entries split by `;`, their columns by `|`.

English is American and without contractions. English forms that agree or inflect are made in `phrasebook_entries`.
"""

from collections.abc import Callable
from typing import TypeVar

from dist_s2s.text.phrasebook_entries import (
    Adjective,
    Noun,
    Owner,
    Phrase,
    Quantity,
    Routine,
    activity,
    person,
)

Kind = TypeVar("Kind")


def _rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in entry.split("|")] for entry in table.split(";")]


def _entries(make: Callable[..., Kind], table: str) -> list[Kind]:
    return [make(*row) for row in _rows(table)]


PEOPLE = _entries(
    person,
    """
我|I|me|first; 你|you|you|second; 他|he|him|third; 她|she|her|third; 我们|we|us|we; 他们|they|them|they;
孩子们|the children|the children|they; 小明|Xiaoming|Xiaoming|third; 小红|Xiaohong|Xiaohong|third;
汤姆|Tom|Tom|third; 玛丽|Mary|Mary|third; 我 妈妈|my mother|my mother|third;
我 爸爸|my father|my father|third; 我 哥哥|my older brother|my older brother|third;
我 妹妹|my younger sister|my younger sister|third; 我 朋友|my friend|my friend|third;
你 妈妈|your mother|your mother|third; 他 妻子|his wife|his wife|third;
她 丈夫|her husband|her husband|third; 我 的 老师|my teacher|my teacher|third""",
)
_BY_NAME = {entry.zh: entry for entry in PEOPLE}
FRIENDS = [_BY_NAME[name] for name in "我 你 他 她 我们 他们 小明 小红 汤姆 玛丽".split()]
FRIENDS += [_BY_NAME[name] for name in ("我 妈妈", "我 哥哥", "他 妻子")]
ADULTS = [entry for entry in PEOPLE if entry.zh not in ("孩子们", "我 的 老师", "你")]
YOUNG = [
    _BY_NAME[name]
    for name in ("我", "他", "她", "小明", "小红", "汤姆", "玛丽", "我 哥哥", "我 妹妹", "我 朋友")
]
OWNERS = _entries(
    Owner,
    """
我|my|mine; 你|your|yours; 他|his|his; 她|her|hers; 我们|our|ours; 他们|their|theirs""",
)

_VERBS = {
    row[0].split()[0]: tuple(row[0].split())
    for row in _rows("""
drink drinks drinking drank drunk; eat eats eating ate eaten; read reads reading read read;
watch watches watching watched watched; listen listens listening listened listened;
study studies studying studied studied; write writes writing wrote written; do does doing did done;
cook cooks cooking cooked cooked; wash washes washing washed washed; clean cleans cleaning cleaned cleaned;
sing sings singing sang sung; dance dances dancing danced danced; run runs running ran run;
swim swims swimming swam swum; play plays playing played played; ride rides riding rode ridden;
draw draws drawing drew drawn; take takes taking took taken; work works working worked worked;
rest rests resting rested rested""")
}

# Chinese verb | object | English verb | object of a habit | object of one event | places | s: a skill, e: "has ever"
ACTIVITIES = [
    activity(verb, object_, _VERBS[english], *rest)
    for verb, object_, english, *rest in _rows("""
喝|茶|drink|tea|tea|家里 饭馆 咖啡馆 办公室|e;
喝|咖啡|drink|coffee|coffee|家里 咖啡馆 办公室|e;
喝|牛奶|drink|milk|milk|家里|;
吃|苹果|eat|apples|an apple|家里 学校|;
吃|鸡蛋|eat|eggs|an egg|家里|;
吃|米饭|eat|rice|rice|家里 饭馆|;
吃|面条|eat|noodles|noodles|家里 饭馆|e;
吃|饺子|eat|dumplings|dumplings|家里 饭馆|e;
看|书|read|books|a book|家里 图书馆 公园 咖啡馆|;
看|报纸|read|newspapers|a newspaper|家里 图书馆 咖啡馆 办公室|;
看|电视|watch|TV|TV|家里|;
看|电影|watch|movies|a movie|家里|;
听|音乐|listen|to music|to music|家里 公园 办公室|;
听|广播|listen|to the radio|to the radio|家里 办公室|;
学|中文|study|Chinese|Chinese|家里 学校 图书馆|e;
学|英语|study|English|English|家里 学校 图书馆|e;
学|数学|study|math|math|家里 学校 图书馆|e;
学|自然 语言 处理|study|natural language processing|natural language processing|学校 图书馆|e;
写|信|write|letters|a letter|家里 咖啡馆 办公室|e;
做|作业|do|homework|homework|家里 学校 图书馆|;
做|饭|cook|||家里|s;
洗|衣服|wash|clothes|clothes|家里|;
打扫|房间|clean|the room|the room||;
唱|歌|sing|||公园 学校|s;
跳舞||dance|||公园 学校|s;
跑步||run|||公园 学校|;
游泳||swim||||s;
打|篮球|play|basketball|basketball|公园 学校|se;
踢|足球|play|soccer|soccer|公园 学校|se;
打|网球|play|tennis|tennis|公园 学校|se;
弹|钢琴|play|the piano|the piano|家里 学校|se;
骑|自行车|ride|a bike|a bike|公园|se;
画|画|draw|pictures|a picture|家里 公园 学校|s;
拍照||take|photos|photos|公园 学校|;
工作||work|||家里 学校 办公室|;
休息||rest|||家里 公园 办公室|""")
]
SKILLS = [entry for entry in ACTIVITIES if "s" in entry.tags]
TASTES = [entry for entry in ACTIVITIES if "e" in entry.tags]
PLACES = _entries(
    Phrase,
    """
家里|at home; 学校|at school; 图书馆|in the library; 公园|in the park; 饭馆|in the restaurant;
咖啡馆|in the cafe; 办公室|in the office""",
)

HABITS = _entries(
    Phrase,
    """
每天|every day; 每天 早上|every morning; 每天 晚上|every evening; 每 个 周末|every weekend""",
)
OFTEN = _entries(
    Phrase,
    """
常常|often; 有时候|sometimes; 总是|always; 从来 不|never; 很少|rarely; 也|also""",
)
PAST = _entries(
    Phrase,
    """
昨天|yesterday; 前天|the day before yesterday; 昨天 晚上|last night; 今天 早上|this morning; 上 个 星期|last week""",
)
FUTURE = _entries(
    Phrase,
    """
明天|tomorrow; 后天|the day after tomorrow; 明天 早上|tomorrow morning; 今天 晚上|this evening; 下 个 星期|next week""",
)
# l: something one loves, t: a topic one is interested in
TOPICS = _entries(
    Phrase,
    """
茶|tea; 咖啡|coffee; 牛奶|milk; 水果|fruit; 苹果|apples; 香蕉|bananas; 米饭|rice; 饺子|dumplings;
面条|noodles; 猫|cats; 狗|dogs; 花|flowers; 足球|soccer|lt; 篮球|basketball|lt; 电影|movies|lt; 音乐|music|lt;
艺术|art|lt; 文学|literature|lt; 数学|math|lt; 历史|history|lt; 科学|science|lt; 自然|nature|lt; 语言|languages|t;
机器 学习|machine learning|lt; 人工 智能|artificial intelligence|lt; 自然 语言 处理|natural language processing|lt;
春天|spring|l; 夏天|summer|l; 秋天|autumn|l; 冬天|winter|l; 中国|China|l; 北京|Beijing|l; 上海|Shanghai|l""",
)
LOVED = [topic for topic in TOPICS if "l" in topic.tags]
INTERESTING = [topic for topic in TOPICS if "t" in topic.tags]
CITIES = _entries(
    Phrase,
    """
北京|Beijing; 上海|Shanghai; 广州|Guangzhou; 纽约|New York; 伦敦|London; 巴黎|Paris; 东京|Tokyo""",
)
SITES = _entries(
    Phrase,
    """
图书馆|the library; 公园|the park; 医院|the hospital; 银行|the bank; 邮局|the post office;
超市|the supermarket; 火车站|the train station; 机场|the airport; 饭馆|the restaurant; 咖啡馆|the cafe;
动物园|the zoo; 博物馆|the museum; 书店|the bookstore""",
)
DESTINATIONS = [*SITES, Phrase("学校", "school")]

# The last column has the hours that suit.
ROUTINES = _entries(
    Routine,
    """
起床|get up|gets up|五 六 七 八; 吃 早饭|have breakfast|has breakfast|六 七 八 九; 上班|go to work|goes to work|七 八 九;
吃 午饭|have lunch|has lunch|十一 十二 一; 下班|leave work|leaves work|四 五 六; 回 家|go home|goes home|三 四 五 六;
吃 晚饭|have dinner|has dinner|五 六 七 八; 睡觉|go to bed|goes to bed|九 十 十一""",
)
VEHICLES = _entries(
    Phrase,
    """
坐 公共汽车|by bus; 坐 地铁|by subway; 坐 出租车|by taxi; 骑 自行车|by bike; 走路|on foot""",
)
SIDES = _entries(
    Phrase,
    """
旁边|next to; 对面|across from; 后面|behind; 前面|in front of""",
)
WEEKDAYS = _entries(
    Phrase,
    """
星期一|Monday; 星期二|Tuesday; 星期三|Wednesday; 星期四|Thursday; 星期五|Friday; 星期六|Saturday; 星期日|Sunday""",
)
MONTHS = _entries(
    Phrase,
    """
一月|January; 二月|February; 三月|March; 四月|April; 五月|May; 六月|June; 七月|July; 八月|August;
九月|September; 十月|October; 十一月|November; 十二月|December""",
)
POINTERS = _entries(
    Phrase,
    """
这|this|these; 那|that|those""",
)

_ONES = _entries(
    Phrase,
    """
一|one; 二|two; 三|three; 四|four; 五|five; 六|six; 七|seven; 八|eight; 九|nine; 十|ten; 十一|eleven;
十二|twelve""",
)
_TEENS = _entries(
    Phrase,
    """
十三|thirteen; 十四|fourteen; 十五|fifteen; 十六|sixteen; 十七|seventeen; 十八|eighteen; 十九|nineteen;
二十|twenty""",
)
_TENS = _entries(
    Phrase,
    """
三十|thirty; 四十|forty; 五十|fifty; 六十|sixty; 七十|seventy; 八十|eighty; 九十|ninety; 一百|one hundred;
两百|two hundred; 三百|three hundred""",
)
AGES = _ONES[4:] + _TEENS
PRICES = _ONES[4:] + _TEENS + _TENS
# Before a measure word, and before 点, two is 两.
COUNTS = [Phrase("两", "two") if number.zh == "二" else number for number in _ONES]
HOURS = [Phrase(f"{hour} 点", f"{hour.en} o'clock", hour.zh) for hour in COUNTS]
HOURS += [Phrase(f"{hour} 点 半", f"half past {hour.en}", hour.zh) for hour in COUNTS]

# Kinds: s small thing, f furniture, v vehicle, e food, t paper, a animal, n plant, p people
NOUNS = _entries(
    Noun,
    """
书|本|book|books|s; 词典|本|dictionary|dictionaries|s; 笔|支|pen|pens|s; 杯子|个|cup|cups|s;
雨伞|把|umbrella|umbrellas|s; 帽子|顶|hat|hats|s; 衬衫|件|shirt|shirts|s; 毛衣|件|sweater|sweaters|s;
手机|部|phone|phones|s; 电脑|台|computer|computers|s; 照片|张|photo|photos|t; 票|张|ticket|tickets|t;
地图|张|map|maps|t; 桌子|张|table|tables|f; 椅子|把|chair|chairs|f; 床|张|bed|beds|f; 车|辆|car|cars|v;
自行车|辆|bike|bikes|v; 苹果|个|apple|apples|e; 橘子|个|orange|oranges|e; 鸡蛋|个|egg|eggs|e; 猫|只|cat|cats|a;
狗|只|dog|dogs|a; 鸟|只|bird|birds|a; 花|朵|flower|flowers|n; 树|棵|tree|trees|n; 学生|个|student|students|p;
孩子|个|child|children|p; 老师|位|teacher|teachers|p; 医生|位|doctor|doctors|p""",
)
# Drinks and dishes, counted by what holds them. kind: d drunk, m a meal
SERVINGS = _entries(
    Noun,
    """
茶|杯|cup of tea|cups of tea|d; 咖啡|杯|cup of coffee|cups of coffee|d;
牛奶|杯|glass of milk|glasses of milk|d; 水|瓶|bottle of water|bottles of water|d;
米饭|碗|bowl of rice|bowls of rice|m; 面条|碗|bowl of noodles|bowls of noodles|m;
汤|碗|bowl of soup|bowls of soup|m""",
)
BELONGINGS = [noun for noun in NOUNS if noun.kind in "stfva"]
CHEAP = [noun for noun in NOUNS if noun.zh in "书 词典 笔 杯子 雨伞 帽子 衬衫 毛衣 地图 票".split()]
_GIFTS = [noun for noun in NOUNS if noun.zh in "书 词典 笔 雨伞 帽子 手机 照片 票 地图 苹果 橘子 花".split()]


def _quantities(nouns: list[Noun], most: int) -> list[Quantity]:
    """Each noun in every number from one to `most`."""
    return [
        Quantity(f"{count} {noun.cl} {noun}", noun.one, "is", noun)
        if count.en == "one"
        else Quantity(f"{count} {noun.cl} {noun}", f"{count.en} {noun.many}", "are", noun)
        for noun in nouns
        for count in COUNTS[:most]
    ]


QUANTITIES = _quantities(NOUNS, 10)
POSSESSIONS = [quantity for quantity in QUANTITIES if quantity.noun.kind not in "pn"]
PURCHASES = [quantity for quantity in QUANTITIES if quantity.noun.kind not in "pa"]
PRESENTS = _quantities(_GIFTS, 4)
DRINKS = _quantities([noun for noun in SERVINGS if noun.kind == "d"], 6)
DISHES = _quantities([noun for noun in SERVINGS if noun.kind == "m"], 4)
# tags: the kinds that may be there
SPOTS = _entries(
    Phrase,
    """
桌子 上|on the table|set; 床 上|on the bed|sta; 盒子 里|in the box|ste; 书包 里|in the schoolbag|ste;
房间 里|in the room|fap; 教室 里|in the classroom|fp; 花园 里|in the garden|anp; 公园 里|in the park|anp;
街 上|on the street|vap; 椅子 下面|under the chair|sa; 门 后面|behind the door|sap""",
)
# tags: the kinds that may be so
QUALITIES = _entries(
    Adjective,
    """
贵|expensive|more expensive|stfve; 便宜|cheap|cheaper|stfve; 大|big|bigger|sfveatn;
小|small|smaller|sfveatn; 新|new|newer|sfvt; 旧|old|older|sfvt; 漂亮|beautiful|more beautiful|sfvan;
干净|clean|cleaner|sfv; 可爱|cute|cuter|a""",
)
# l: a lasting quality, t: a passing state
FEELINGS = _entries(
    Adjective,
    """
高|tall|taller|l; 年轻|young|younger|l; 聪明|smart|smarter|l; 友好|friendly|friendlier|l;
有名|famous|more famous|l; 认真|serious|more serious|l; 忙|busy|busier|t; 累|tired|more tired|t;
高兴|happy|happier|t; 饿|hungry|hungrier|t; 渴|thirsty|thirstier|t; 生气|angry|angrier|t; 难过|sad|sadder|t;
紧张|nervous|more nervous|t""",
)
SIZES = [quality for quality in QUALITIES if quality.zh in "贵 大 小 旧".split()]
LASTING = [feeling for feeling in FEELINGS if feeling.tags == "l"]
PASSING = [feeling for feeling in FEELINGS if feeling.tags == "t"]
WEATHER = _entries(
    Adjective,
    """
冷|cold|colder|w; 热|hot|hotter|w; 凉快|cool|cooler|w; 暖和|warm|warmer|w; 潮湿|humid|more humid|w""",
)
RAIN = _entries(
    Phrase,
    """
下雨|rain; 下雪|snow""",
)
JOBS = _entries(
    Noun,
    """
老师|位|teacher|teachers|j; 学生|个|student|students|j; 医生|位|doctor|doctors|j; 护士|位|nurse|nurses|j;
司机|位|driver|drivers|j; 工程师|位|engineer|engineers|j; 作家|位|writer|writers|j; 律师|位|lawyer|lawyers|j;
厨师|位|chef|chefs|j; 歌手|位|singer|singers|j; 演员|位|actor|actors|j; 警察|位|police officer|police officers|j""",
)
FIXED = _entries(
    Phrase,
    """
你 好|Hello; 早上 好|Good morning; 晚安|Good night; 再见|Goodbye; 明天 见|See you tomorrow; 谢谢 你|Thank you;
不 客气|You are welcome; 对不起|I am sorry; 没 关系|It does not matter; 没 问题|No problem; 请 进|Please come in;
请 坐|Please sit down; 请 等 一下|Please wait a moment; 请 再 说 一 遍|Please say it again;
你 叫 什么 名字 ？|What is your name?; 我 的 名字 叫 小明|My name is Xiaoming; 很 高兴 认识 你|Nice to meet you;
你 好 吗 ？|How are you?; 我 很 好|I am fine; 生日 快乐|Happy birthday; 新年 快乐|Happy New Year; 祝 你 好 运|Good luck;
一路 平安|Have a safe trip; 小心|Be careful; 我 不 知道|I do not know; 我 不 明白|I do not understand;
现在 几 点 ？|What time is it now?; 今天 星期 几 ？|What day is it today?; 洗手间 在 哪儿 ？|Where is the restroom?;
我 迷路 了|I am lost; 别 担心|Do not worry; 你 从 哪儿 来 ？|Where are you from?; 我 从 中国 来|I am from China;
你 会 说 中文 吗 ？|Can you speak Chinese?; 你 说 得 太 快 了|You speak too fast; 请 帮帮 我|Please help me;
这 个 用 中文 怎么 说 ？|How do you say this in Chinese?; 我 听 不 懂|I cannot understand what you are saying;
祝贺 你|Congratulations; 请 跟 我 来|Please follow me; 我 马上 回来|I will be right back; 周末 愉快|Have a nice weekend""",
)
