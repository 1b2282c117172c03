"""The words of the phrasebook, by the slots of `patterns` that they fill.

A table has one line for each slot, `slot: entry; entry; ...`, and goes on in the next line after a `;`. The columns of
an entry are split by `|`, in the order of its fields in `entries`. English is American, without
contractions.
"""

import re
from collections.abc import Callable
from typing import TypeVar

from dist_s2s.text.phrasebook.entries import (
    Activity,
    Adjective,
    Entry,
    Noun,
    Owner,
    Phrase,
    Routine,
    activity,
    person,
)

Kind = TypeVar("Kind", bound=Entry)


def _slots(make: Callable[..., Kind], table: str) -> dict[str, list[Kind]]:
    slots = {}
    for line in re.split(r"(?<!;)\n", table.strip()):
        slot, entries = line.split(":", 1)
        slots[slot] = [make(*(cell.strip() for cell in entry.split("|"))) for entry in entries.split(";")]
    return slots


# Tags: f may be the other person x, j may have a job, y is young enough for any age of the tables.
PEOPLE = _slots(
    person,
    """
s: 我|I|me|first|fjy; 你|you|you|second|fj; 他|he|him|third|fjy; 她|she|her|third|fjy; 我们|we|us|we|fj;
他们|they|them|they|fj; 孩子们|the children|the children|they|; 小明|Xiaoming|Xiaoming|third|fjy;
小红|Xiaohong|Xiaohong|third|fjy; 汤姆|Tom|Tom|third|fjy; 玛丽|Mary|Mary|third|fjy;
我 妈妈|my mother|my mother|third|fj; 我 爸爸|my father|my father|third|fj;
我 哥哥|my older brother|my older brother|third|fjy; 我 妹妹|my younger sister|my younger sister|third|jy;
我 朋友|my friend|my friend|third|jy; 你 妈妈|your mother|your mother|third|j; 他 妻子|his wife|his wife|third|j;
她 丈夫|her husband|her husband|third|j; 我 的 老师|my teacher|my teacher|third|
""",
)

_VERB_FORMS = """
drink drinks drinking drank drunk; eat eats eating ate eaten; read reads reading read read;
watch watches watching watched watched; listen listens listening listened listened;
study studies studying studied studied; write writes writing wrote written; do does doing did done;
cook cooks cooking cooked cooked; wash washes washing washed washed; clean cleans cleaning cleaned cleaned;
sing sings singing sang sung; dance dances dancing danced danced; run runs running ran run;
swim swims swimming swam swum; play plays playing played played; ride rides riding rode ridden;
draw draws drawing drew drawn; take takes taking took taken; work works working worked worked;
rest rests resting rested rested"""
_VERBS = {forms.split()[0]: tuple(forms.split()) for forms in _VERB_FORMS.split(";")}


def _activity(verb: str, object_: str, english: str, *rest: str) -> Activity:
    return activity(verb, object_, _VERBS[english], *rest)


# Columns: Chinese verb, its object, English verb, object of a habit, object of one event, places, tags.
# Tags: s is a skill that one has or not, e an experience that one has had or not.
ACTIVITIES = _slots(
    _activity,
    """
a: 喝|茶|drink|tea|tea|家里 饭馆 咖啡馆 办公室|e;
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
休息||rest|||家里 公园 办公室|
""",
)

# Tags of t: l is something one loves, i a topic one is interested in. Of spot: the kinds of noun that may be there.
PHRASES = _slots(
    Phrase,
    """
p: 家里|at home; 学校|at school; 图书馆|in the library; 公园|in the park; 饭馆|in the restaurant;
咖啡馆|in the cafe; 办公室|in the office
habit: 每天|every day; 每天 早上|every morning; 每天 晚上|every evening; 每 个 周末|every weekend
often: 常常|often; 有时候|sometimes; 总是|always; 从来 不|never; 很少|rarely; 也|also
past: 昨天|yesterday; 前天|the day before yesterday; 昨天 晚上|last night; 今天 早上|this morning;
上 个 星期|last week
recent: 昨天|yesterday; 前天|the day before yesterday; 昨天 晚上|last night; 今天 早上|this morning
future: 明天|tomorrow; 后天|the day after tomorrow; 明天 早上|tomorrow morning; 今天 晚上|this evening;
下 个 星期|next week
t: 茶|tea; 咖啡|coffee; 牛奶|milk; 水果|fruit; 苹果|apples; 香蕉|bananas; 米饭|rice; 饺子|dumplings;
面条|noodles; 猫|cats; 狗|dogs; 花|flowers; 足球|soccer|li; 篮球|basketball|li; 电影|movies|li; 音乐|music|li;
艺术|art|li; 文学|literature|li; 数学|math|li; 历史|history|li; 科学|science|li; 自然|nature|li; 语言|languages|i;
机器 学习|machine learning|li; 人工 智能|artificial intelligence|li;
自然 语言 处理|natural language processing|li; 春天|spring|l; 夏天|summer|l; 秋天|autumn|l; 冬天|winter|l;
中国|China|l; 北京|Beijing|l; 上海|Shanghai|l
c: 北京|Beijing; 上海|Shanghai; 广州|Guangzhou; 纽约|New York; 伦敦|London; 巴黎|Paris; 东京|Tokyo
site: 图书馆|the library; 公园|the park; 医院|the hospital; 银行|the bank; 邮局|the post office;
超市|the supermarket; 火车站|the train station; 机场|the airport; 饭馆|the restaurant; 咖啡馆|the cafe;
动物园|the zoo; 博物馆|the museum; 书店|the bookstore
side: 旁边|next to; 对面|across from; 后面|behind; 前面|in front of
v: 坐 公共汽车|by bus; 坐 地铁|by subway; 坐 出租车|by taxi; 骑 自行车|by bike; 走路|on foot
weekday: 星期一|Monday; 星期二|Tuesday; 星期三|Wednesday; 星期四|Thursday; 星期五|Friday; 星期六|Saturday;
星期日|Sunday
month: 一月|January; 二月|February; 三月|March; 四月|April; 五月|May; 六月|June; 七月|July; 八月|August;
九月|September; 十月|October; 十一月|November; 十二月|December
d: 这|this|these; 那|that|those
spot: 桌子 上|on the table|set; 床 上|on the bed|sta; 盒子 里|in the box|ste; 书包 里|in the schoolbag|ste;
房间 里|in the room|fap; 教室 里|in the classroom|fp; 花园 里|in the garden|anp; 公园 里|in the park|anp;
街 上|on the street|vap; 椅子 下面|under the chair|sa; 门 后面|behind the door|sap
rain: 下雨|rain; 下雪|snow
count: 一|one; 两|two; 三|three; 四|four; 五|five; 六|six; 七|seven; 八|eight; 九|nine; 十|ten; 十一|eleven;
十二|twelve
age: 五|five; 六|six; 七|seven; 八|eight; 九|nine; 十|ten; 十一|eleven; 十二|twelve; 十三|thirteen; 十四|fourteen;
十五|fifteen; 十六|sixteen; 十七|seventeen; 十八|eighteen; 十九|nineteen; 二十|twenty
price: 五|five; 八|eight; 十|ten; 十二|twelve; 十五|fifteen; 十八|eighteen; 二十|twenty; 三十|thirty; 四十|forty;
五十|fifty; 六十|sixty; 七十|seventy; 八十|eighty; 九十|ninety; 一百|one hundred; 两百|two hundred;
三百|three hundred
fixed: 你 好|hello; 早上 好|good morning; 晚安|good night; 再见|goodbye; 明天 见|see you tomorrow;
谢谢 你|thank you; 不 客气|you are welcome; 对不起|I am sorry; 没 关系|it does not matter; 没 问题|no problem;
请 进|please come in; 请 坐|please sit down; 请 等 一下|please wait a moment; 请 再 说 一 遍|please say it again;
你 叫 什么 名字 ？|what is your name?; 我 的 名字 叫 小明|my name is Xiaoming; 你 好 吗 ？|how are you?;
很 高兴 认识 你|nice to meet you; 我 很 好|I am fine; 生日 快乐|happy birthday; 新年 快乐|happy New Year;
祝 你 好 运|good luck; 一路 平安|have a safe trip; 小心|be careful; 我 不 知道|I do not know;
我 不 明白|I do not understand; 现在 几 点 ？|what time is it now?; 今天 星期 几 ？|what day is it today?;
洗手间 在 哪儿 ？|where is the restroom?; 我 迷路 了|I am lost; 别 担心|do not worry; 请 帮帮 我|please help me;
你 从 哪儿 来 ？|where are you from?; 我 从 中国 来|I am from China; 你 会 说 中文 吗 ？|can you speak Chinese?;
你 说 得 太 快 了|you speak too fast; 这 个 用 中文 怎么 说 ？|how do you say this in Chinese?;
我 听 不 懂|I cannot understand what you are saying; 祝贺 你|congratulations; 请 跟 我 来|please follow me;
我 马上 回来|I will be right back; 周末 愉快|have a nice weekend
""",
)

# Columns of r: the last has the hours that suit.
ROUTINES = _slots(
    Routine,
    """
r: 起床|get up|gets up|五 六 七 八; 吃 早饭|have breakfast|has breakfast|六 七 八 九;
上班|go to work|goes to work|七 八 九; 吃 午饭|have lunch|has lunch|十一 十二 一;
下班|leave work|leaves work|四 五 六; 回 家|go home|goes home|三 四 五 六;
吃 晚饭|have dinner|has dinner|五 六 七 八; 睡觉|go to bed|goes to bed|九 十 十一
""",
)
OWNERS = _slots(
    Owner,
    "o: 我|my|mine; 你|your|yours; 他|his|his; 她|her|hers; 我们|our|ours; 他们|their|theirs",
)

# Kinds of thing: s small, t paper, f furniture, v vehicle, e food, a animal, n plant, p people.
# Kinds of serving: d is drunk, m eaten.
NOUNS = _slots(
    Noun,
    """
thing: 书|本|book|books|s; 词典|本|dictionary|dictionaries|s; 笔|支|pen|pens|s; 杯子|个|cup|cups|s;
雨伞|把|umbrella|umbrellas|s; 帽子|顶|hat|hats|s; 衬衫|件|shirt|shirts|s; 毛衣|件|sweater|sweaters|s;
手机|部|phone|phones|s; 电脑|台|computer|computers|s; 照片|张|photo|photos|t; 票|张|ticket|tickets|t;
地图|张|map|maps|t; 桌子|张|table|tables|f; 椅子|把|chair|chairs|f; 床|张|bed|beds|f; 车|辆|car|cars|v;
自行车|辆|bike|bikes|v; 苹果|个|apple|apples|e; 橘子|个|orange|oranges|e; 鸡蛋|个|egg|eggs|e; 猫|只|cat|cats|a;
狗|只|dog|dogs|a; 鸟|只|bird|birds|a; 花|朵|flower|flowers|n; 树|棵|tree|trees|n; 学生|个|student|students|p;
孩子|个|child|children|p; 老师|位|teacher|teachers|p; 医生|位|doctor|doctors|p
serving: 茶|杯|cup of tea|cups of tea|d; 咖啡|杯|cup of coffee|cups of coffee|d;
水|瓶|bottle of water|bottles of water|d; 牛奶|杯|glass of milk|glasses of milk|d;
米饭|碗|bowl of rice|bowls of rice|m; 面条|碗|bowl of noodles|bowls of noodles|m;
汤|碗|bowl of soup|bowls of soup|m
job: 老师|位|teacher|teachers|j; 学生|个|student|students|j; 医生|位|doctor|doctors|j; 护士|位|nurse|nurses|j;
司机|位|driver|drivers|j; 工程师|位|engineer|engineers|j; 作家|位|writer|writers|j; 律师|位|lawyer|lawyers|j;
厨师|位|chef|chefs|j; 歌手|位|singer|singers|j; 演员|位|actor|actors|j; 警察|位|police officer|police officers|j
""",
)

# Tags of look: the kinds of thing that may look so. Of j: l is a lasting quality, p a passing state, u an upset one.
ADJECTIVES = _slots(
    Adjective,
    """
look: 贵|expensive|more expensive|stfve; 便宜|cheap|cheaper|stfve; 大|big|bigger|sfveatn;
小|small|smaller|sfveatn; 新|new|newer|sfvt; 旧|old|older|sfvt; 漂亮|beautiful|more beautiful|sfvan;
干净|clean|cleaner|sfv; 可爱|cute|cuter|a
size: 贵|expensive|more expensive|stfve; 大|big|bigger|sfveatn; 小|small|smaller|sfveatn; 旧|old|older|sfvt
j: 高|tall|taller|l; 年轻|young|younger|l; 聪明|smart|smarter|l; 友好|friendly|friendlier|l;
有名|famous|more famous|l; 认真|serious|more serious|l; 高兴|happy|happier|p; 忙|busy|busier|pu;
累|tired|more tired|pu; 饿|hungry|hungrier|pu; 渴|thirsty|thirstier|pu; 孤单|lonely|lonelier|pu;
难过|sad|sadder|pu; 紧张|nervous|more nervous|pu
w: 冷|cold|colder|; 热|hot|hotter|; 凉快|cool|cooler|; 暖和|warm|warmer|; 潮湿|humid|more humid|
""",
)
