"""The sentence patterns of the phrasebook, one table per family: `Chinese | English`, a pattern a line.

A field such as `{s}` is a slot that an entry of the lexicon fills: `{s}` prints its Chinese, `{s.en}` or `{a.past}` an
English form. `{present}`, `{role}` are made by `phrasebook_grammar` to agree with the subject. Tense is always marked
in the Chinese (每天 or 常常, 正在, 了 with a past time, 会 or 要 with a future one), so that each line has one translation.
"""

# s: subject, a: activity
ACTIONS = """
{s} {habit} {a} | {s.en} {present} {habit.en}
{s} {habit} {a} 吗 ？ | {s.do} {s.en} {a.habit} {habit.en}?
{s} {often} {a} | {s.en} {often.en} {present}
{s} 不 {a} | {s.en} {s.do} not {a.habit}
{s} 正在 {a} | {s.en} {s.be} {a.ing}
{s} 没 在 {a} | {s.en} {s.be} not {a.ing}
{s} 在 {a} 吗 ？ | {s.be} {s.en} {a.ing}?
{s} {past} {a} 了 | {s.en} {a.past} {past.en}
{past} {s} {a} 了 | {past.en} {s.en} {a.past}
{s} {past} 没 {a} | {s.en} did not {a.base} {past.en}
{s} {past} {a} 了 吗 ？ | did {s.en} {a.base} {past.en}?
{s} {future} 会 {a} | {s.en} will {a.base} {future.en}
{future} {s} 会 {a} | {future.en} {s.en} will {a.base}
{s} {future} 不 会 {a} | {s.en} will not {a.base} {future.en}
{s} {future} 会 {a} 吗 ？ | will {s.en} {a.base} {future.en}?
{s} {future} 要 {a} | {s.en} {s.be} going to {a.base} {future.en}
{s} {future} 什么 时候 {a} ？ | when will {s.en} {a.base} {future.en}?
{s} 想 {a} | {s.en} want{s.s} to {a.base}
{s} 不 想 {a} | {s.en} {s.do} not want to {a.base}
{s} 想 {a} 吗 ？ | {s.do} {s.en} want to {a.base}?
{s} 喜欢 {a} | {s.en} like{s.s} {a.gerund}
{s} 不 喜欢 {a} | {s.en} {s.do} not like {a.gerund}
{s} 喜欢 {a} 吗 ？ | {s.do} {s.en} like {a.gerund}?
{s} 应该 每天 {a} | {s.en} should {a.habit} every day
{s} 为什么 不 想 {a} ？ | why {s.do} {s.en} not want to {a.base}?
{s} 为什么 喜欢 {a} ？ | why {s.do} {s.en} like {a.gerund}?
{s} 平时 在 哪儿 {a} ？ | where {s.do} {s.en} usually {a.habit}?
"""
CAN = """
{s} 会 {k} | {s.en} can {k.habit}
{s} 不 会 {k} | {s.en} cannot {k.habit}
{s} 会 {k} 吗 ？ | can {s.en} {k.habit}?
{s} 也 会 {k} | {s.en} can also {k.habit}
"""
TRIED = """
{s} {e.verb} 过 {e.object} | {s.en} {s.have} {e.tried} before
{s} 没 {e.verb} 过 {e.object} | {s.en} {s.have} never {e.tried}
{s} {e.verb} 过 {e.object} 吗 ？ | {s.have} {s.en} ever {e.tried}?
"""
# p: place
SOMEWHERE = """
{s} {habit} 在 {p} {a} | {s.en} {present} {p.en} {habit.en}
{s} {habit} 在 {p} {a} 吗 ？ | {s.do} {s.en} {a.habit} {p.en} {habit.en}?
{s} 正在 {p} {a} | {s.en} {s.be} {a.ing} {p.en}
{s} {past} 在 {p} {a} 了 | {s.en} {a.past} {p.en} {past.en}
{s} {past} 没 在 {p} {a} | {s.en} did not {a.base} {p.en} {past.en}
{s} {future} 会 在 {p} {a} | {s.en} will {a.base} {p.en} {future.en}
{s} {future} 会 在 {p} {a} 吗 ？ | will {s.en} {a.base} {p.en} {future.en}?
{s} 想 在 {p} {a} | {s.en} want{s.s} to {a.base} {p.en}
{s} 喜欢 在 {p} {a} | {s.en} like{s.s} {a.gerund} {p.en}
"""
# x: another person
TOGETHER = """
{s} 常常 和 {x} 一起 {a} | {s.en} often {present} with {x.objective}
{s} 想 和 {x} 一起 {a} | {s.en} want{s.s} to {a.base} with {x.objective}
{s} 昨天 和 {x} 一起 {a} 了 | {s.en} {a.past} with {x.objective} yesterday
{s} 明天 会 和 {x} 一起 {a} | {s.en} will {a.base} with {x.objective} tomorrow
"""
WHO = """
谁 {past} {a} 了 ？ | who {a.past} {past.en}?
谁 {future} 会 {a} ？ | who will {a.base} {future.en}?
谁 {habit} {a} ？ | who {a.third} {habit.en}?
谁 在 {a} ？ | who is {a.ing}?
谁 想 {a} ？ | who wants to {a.base}?
谁 喜欢 {a} ？ | who likes {a.gerund}?
"""
# t: topic
LIKES = """
{s} 喜欢 {t} | {s.en} like{s.s} {t.en}
{s} 也 喜欢 {t} | {s.en} also like{s.s} {t.en}
{s} 非常 喜欢 {t} | {s.en} like{s.s} {t.en} very much
{s} 不 喜欢 {t} | {s.en} {s.do} not like {t.en}
{s} 喜欢 {t} 吗 ？ | {s.do} {s.en} like {t.en}?
{s} 为什么 喜欢 {t} ？ | why {s.do} {s.en} like {t.en}?
"""
LOVES = """
{s} 爱 {l} | {s.en} love{s.s} {l.en}
{s} 也 爱 {l} | {s.en} also love{s.s} {l.en}
"""
INTERESTS = """
{s} 对 {i} 感 兴趣 | {s.en} {s.be} interested in {i.en}
{s} 对 {i} 不 感 兴趣 | {s.en} {s.be} not interested in {i.en}
{s} 对 {i} 感 兴趣 吗 ？ | {s.be} {s.en} interested in {i.en}?
"""
ACQUAINTANCES = """
{s} 认识 {x} | {s.en} know{s.s} {x.objective}
{s} 不 认识 {x} | {s.en} {s.do} not know {x.objective}
{s} 认识 {x} 吗 ？ | {s.do} {s.en} know {x.objective}?
{s} 记得 {x} | {s.en} remember{s.s} {x.objective}
{s} 相信 {x} | {s.en} trust{s.s} {x.objective}
{s} 常常 帮助 {x} | {s.en} often help{s.s} {x.objective}
{s} 正在 等 {x} | {s.en} {s.be} waiting for {x.objective}
{s} 正在 找 {x} | {s.en} {s.be} looking for {x.objective}
{s} {past} 帮助 了 {x} | {s.en} helped {x.objective} {past.en}
{s} {past} 看见 了 {x} | {s.en} saw {x.objective} {past.en}
{s} {past} 没 看见 {x} | {s.en} did not see {x.objective} {past.en}
{s} {past} 给 {x} 打 电话 了 | {s.en} called {x.objective} {past.en}
{s} {future} 会 给 {x} 打 电话 | {s.en} will call {x.objective} {future.en}
{s} 想 和 {x} 说话 | {s.en} want{s.s} to talk to {x.objective}
"""
# d: destination
TRIPS = """
{s} {habit} 去 {d} | {s.en} go{s.es} to {d.en} {habit.en}
{s} {habit} 去 {d} 吗 ？ | {s.do} {s.en} go to {d.en} {habit.en}?
{s} {past} 去 {d} 了 | {s.en} went to {d.en} {past.en}
{s} {past} 没 去 {d} | {s.en} did not go to {d.en} {past.en}
{s} {past} 去 {d} 了 吗 ？ | did {s.en} go to {d.en} {past.en}?
{s} {past} 为什么 去 {d} ？ | why did {s.en} go to {d.en} {past.en}?
{s} {future} 会 去 {d} | {s.en} will go to {d.en} {future.en}
{s} {future} 不 会 去 {d} | {s.en} will not go to {d.en} {future.en}
{s} {future} 要 去 {d} 吗 ？ | {s.be} {s.en} going to go to {d.en} {future.en}?
{s} 想 去 {d} | {s.en} want{s.s} to go to {d.en}
{s} 平时 怎么 去 {d} ？ | how {s.do} {s.en} usually go to {d.en}?
{s} 每天 {v} 去 {d} | {s.en} go{s.es} to {d.en} {v.en} every day
{s} {past} {v} 去 {d} 了 | {s.en} went to {d.en} {v.en} {past.en}
{s} {future} 会 {v} 去 {d} | {s.en} will go to {d.en} {v.en} {future.en}
{s} 现在 在 {d} | {s.en} {s.be} at {d.en} now
{s} 现在 不 在 {d} | {s.en} {s.be} not at {d.en} now
{s} 现在 在 {d} 吗 ？ | {s.be} {s.en} at {d.en} now?
{s} {past} 在 {d} | {s.en} {s.was} at {d.en} {past.en}
{s} {past} 不 在 {d} | {s.en} {s.was} not at {d.en} {past.en}
{s} {future} 会 在 {d} | {s.en} will be at {d.en} {future.en}
"""
# c: city
TRAVELS = """
{s} 去 过 {c} | {s.en} {s.have} been to {c.en}
{s} 没 去 过 {c} | {s.en} {s.have} never been to {c.en}
{s} 去 过 {c} 吗 ？ | {s.have} {s.en} ever been to {c.en}?
{s} 住 在 {c} | {s.en} live{s.s} in {c.en}
{s} 不 住 在 {c} | {s.en} {s.do} not live in {c.en}
{s} 住 在 {c} 吗 ？ | {s.do} {s.en} live in {c.en}?
{s} 以前 住 在 {c} | {s.en} used to live in {c.en}
{s} 想 去 {c} | {s.en} want{s.s} to go to {c.en}
{s} 不 想 去 {c} | {s.en} {s.do} not want to go to {c.en}
{s} {past} 去 {c} 了 | {s.en} went to {c.en} {past.en}
{s} {future} 要 去 {c} | {s.en} {s.be} going to go to {c.en} {future.en}
"""
# r: routine, h: hour
HOURS = """
{s} 每天 {h} {r} | {s.en} {present} at {h.en} every day
{s} 平时 {h} {r} | {s.en} usually {present} at {h.en}
{s} 每天 {h} {r} 吗 ？ | {s.do} {s.en} {r.habit} at {h.en} every day?
{s} 明天 要 {h} {r} | {s.en} {s.be} going to {r.habit} at {h.en} tomorrow
{s} 每天 几 点 {r} ？ | what time {s.do} {s.en} {r.habit} every day?
{s} 明天 几 点 {r} ？ | what time will {s.en} {r.habit} tomorrow?
"""
# j: how someone is or feels
BEING = """
{s} 很 {j} | {s.en} {s.be} {j.en}
{s} 非常 {j} | {s.en} {s.be} very {j.en}
{s} 不 {j} | {s.en} {s.be} not {j.en}
{s} 不 太 {j} | {s.en} {s.be} not very {j.en}
{s} {j} 吗 ？ | {s.be} {s.en} {j.en}?
"""
COMPARING = """
{s} 比 {x} {lasting} | {s.en} {s.be} {lasting.more} than {x.objective}
{s} 没有 {x} {lasting} | {s.en} {s.be} not as {lasting.en} as {x.objective}
{s} 比 {x} {lasting} 吗 ？ | {s.be} {s.en} {lasting.more} than {x.objective}?
"""
FEELING = """
{s} {past} 很 {passing} | {s.en} {s.was} {passing.en} {past.en}
{s} {past} 不 {passing} | {s.en} {s.was} not {passing.en} {past.en}
{s} {past} {passing} 吗 ？ | {s.was} {s.en} {passing.en} {past.en}?
{s} 今天 有点儿 {passing} | {s.en} {s.be} a little {passing.en} today
{s} 今天 为什么 这么 {passing} ？ | why {s.be} {s.en} so {passing.en} today?
{s} 看 起来 很 {passing} | {s.en} look{s.s} {passing.en}
"""
WORKING = """
{s} 是 {job} | {s.en} {s.be} {role}
{s} 不 是 {job} | {s.en} {s.be} not {role}
{s} 是 {job} 吗 ？ | {s.be} {s.en} {role}?
{s} 以前 是 {job} | {s.en} used to be {role}
{s} 想 当 {job} | {s.en} want{s.s} to be {role}
{s} 不 想 当 {job} | {s.en} {s.do} not want to be {role}
{s} 想 当 {job} 吗 ？ | {s.do} {s.en} want to be {role}?
"""
AGES = """
{s} 今年 {age} 岁 | {s.en} {s.be} {age.en} years old
{s} 今年 {age} 岁 吗 ？ | {s.be} {s.en} {age.en} years old?
{s} 明年 {age} 岁 | {s.en} will be {age.en} years old next year
{s} 今年 几 岁 ？ | how old {s.be} {s.en}?
"""
# q: quantity, n: noun
OWNING = """
{s} 有 {q} | {s.en} {s.have} {q.en}
{s} 只 有 {q} | {s.en} only {s.have} {q.en}
{s} 需要 {q} | {s.en} need{s.s} {q.en}
"""
LACKING = """
{s} 没有 {n} | {s.en} {s.do} not have {n.one}
{s} 有 {n} 吗 ？ | {s.do} {s.en} have {n.one}?
{s} 不 需要 {n} | {s.en} {s.do} not need {n.one}
{s} 有 几 {n.cl} {n} ？ | how many {n.many} {s.do} {s.en} have?
"""
BUYING = """
{s} {past} 买 了 {q} | {s.en} bought {q.en} {past.en}
{s} {future} 会 买 {q} | {s.en} will buy {q.en} {future.en}
{s} 想 买 {q} | {s.en} want{s.s} to buy {q.en}
"""
GIVING = """
{s} {past} 给 了 {x} {q} | {s.en} gave {x.objective} {q.en} {past.en}
{s} {future} 会 给 {x} {q} | {s.en} will give {x.objective} {q.en} {future.en}
{s} 想 给 {x} {q} | {s.en} want{s.s} to give {x.objective} {q.en}
"""
DRINKING = """
{s} {past} 喝 了 {q} | {s.en} drank {q.en} {past.en}
{s} 想 喝 {q} | {s.en} want{s.s} to drink {q.en}
{s} 每天 喝 {q} | {s.en} drink{s.s} {q.en} every day
"""
DINING = """
{s} {past} 吃 了 {q} | {s.en} ate {q.en} {past.en}
{s} 想 吃 {q} | {s.en} want{s.s} to eat {q.en}
{s} 每天 吃 {q} | {s.en} eat{s.s} {q.en} every day
"""
ORDERING = """
请 给 {x} {q} | please give {x.objective} {q.en}
"""
# spot: a place for things
THERE = """
{spot} 有 {q} | there {q.be} {q.en} {spot.en}
{spot} 只 有 {q} | there {q.be} only {q.en} {spot.en}
{spot} 有 {q} 吗 ？ | {q.be} there {q.en} {spot.en}?
"""
THERE_NONE = """
{spot} 没有 {n} | there are no {n.many} {spot.en}
{spot} 有 几 {n.cl} {n} ？ | how many {n.many} are there {spot.en}?
"""
# o: owner
LYING = """
{o} 的 {n} 在 {spot} | {o.en} {n.en} is {spot.en}
{o} 的 {n} 不 在 {spot} | {o.en} {n.en} is not {spot.en}
{o} 的 {n} 在 {spot} 吗 ？ | is {o.en} {n.en} {spot.en}?
"""
# d: this or that
OWNED = """
{d} 是 {o} 的 {n} | {d.en} is {o.en} {n.en}
{d} 不 是 {o} 的 {n} | {d.en} is not {o.en} {n.en}
{d} 是 {o} 的 {n} 吗 ？ | is {d.en} {o.en} {n.en}?
{d} 是 谁 的 {n} ？ | whose {n.en} is {d.en}?
{d} {n.cl} {n} 是 {o} 的 | {d.en} {n.en} is {o.absolute}
{d}些 {n} 是 {o} 的 吗 ？ | are {d.tags} {n.many} {o.absolute}?
{o} 的 {n} 在 哪儿 ？ | where is {o.en} {n.en}?
"""
DESCRIBED = """
{d} {n.cl} {n} 很 {look} | {d.en} {n.en} is {look.en}
{d} {n.cl} {n} 非常 {look} | {d.en} {n.en} is very {look.en}
{d} {n.cl} {n} 不 {look} | {d.en} {n.en} is not {look.en}
{d} {n.cl} {n} {look} 吗 ？ | is {d.en} {n.en} {look.en}?
{d}些 {n} 很 {look} | {d.tags} {n.many} are {look.en}
{d}些 {n} 都 不 {look} | none of {d.tags} {n.many} are {look.en}
{o} 的 {n} 很 {look} | {o.en} {n.en} is {look.en}
{o} 的 {n} 不 {look} | {o.en} {n.en} is not {look.en}
{o} 的 {n} {look} 吗 ？ | is {o.en} {n.en} {look.en}?
{o} 的 {n} 太 {size} 了 | {o.en} {n.en} is too {size.en}
这 {n.cl} {n} 比 那 {n.cl} {look} | this {n.en} is {look.more} than that one
"""
PRICED = """
{d} {n.cl} {n} {price} 块 钱 | {d.en} {n.en} costs {price.en} yuan
{d} {n.cl} {n} {price} 块 钱 吗 ？ | does {d.en} {n.en} cost {price.en} yuan?
{d} {n.cl} {n} 多少 钱 ？ | how much is {d.en} {n.en}?
"""
# here, there: two sites
MAP = """
{here} 在 {there} {side} | {here.en} is {side.en} {there.en}
{here} 不 在 {there} {side} | {here.en} is not {side.en} {there.en}
{here} 在 {there} {side} 吗 ？ | is {here.en} {side.en} {there.en}?
{here} 离 {there} 很 远 | {here.en} is far from {there.en}
{here} 离 {there} 不 远 | {here.en} is not far from {there.en}
{here} 离 {there} 远 吗 ？ | is {here.en} far from {there.en}?
"""
# w: weather, rain: rain or snow
WEATHER = """
{c} 今天 很 {w} | it is {w.en} in {c.en} today
{c} 今天 不 {w} | it is not {w.en} in {c.en} today
{c} 今天 {w} 吗 ？ | is it {w.en} in {c.en} today?
{c} {past} 很 {w} | it was {w.en} in {c.en} {past.en}
{c} {future} 会 很 {w} | it will be {w.en} in {c.en} {future.en}
{c} {past} {rain} 了 | it {rain.en}ed in {c.en} {past.en}
{c} {past} 没 {rain} | it did not {rain.en} in {c.en} {past.en}
{c} {past} {rain} 了 吗 ？ | did it {rain.en} in {c.en} {past.en}?
{c} {future} 会 {rain} | it will {rain.en} in {c.en} {future.en}
{c} {future} 不 会 {rain} | it will not {rain.en} in {c.en} {future.en}
{c} {future} 会 {rain} 吗 ？ | will it {rain.en} in {c.en} {future.en}?
{c} 正在 {rain} | it is {rain.en}ing in {c.en}
"""
BIRTHDAYS = """
{o} 的 生日 在 {month} | {o.en} birthday is in {month.en}
{o} 的 生日 不 在 {month} | {o.en} birthday is not in {month.en}
{o} 的 生日 在 {month} 吗 ？ | is {o.en} birthday in {month.en}?
"""
CALENDAR = """
今天 是 {weekday} | today is {weekday.en}
今天 不 是 {weekday} | today is not {weekday.en}
今天 是 {weekday} 吗 ？ | is today {weekday.en}?
昨天 是 {weekday} | yesterday was {weekday.en}
明天 是 {weekday} | tomorrow is {weekday.en}
现在 {h} | it is {h.en}
现在 是 {h} 吗 ？ | is it {h.en} now?
{site} 在 哪儿 ？ | where is {site.en}?
{fixed} | {fixed.en}
"""
