"""The sentence patterns of the phrasebook: `Chinese | English`, one a line, in families.

A field such as `{s}` is a slot, filled from `grammar.SLOTS`: on the left it prints the Chinese of the entry,
on the right `{s.en}` or `{a.past}` one of its English forms. `{present}` and `{role}` agree with the subject. Tense is
marked in the Chinese (每天 or 常常, 正在, 了 with a past time, 会 or 要 with a future one), so that a line has one
translation.

Short slots: s subject, x other person, a activity, k skill, e experience, t topic, l loved, i interesting, p place,
v vehicle, c city, r routine, h hour, j being so, n noun, q quantity, o owner, d this or that, w weather.

A family opens with `= slots = number`: the slots whose combination may be held out, and how many sentences at most are
made of each of its patterns.
"""

PATTERNS = """
= s a = 200
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
= s k = 110
{s} 会 {k} | {s.en} can {k.habit}
{s} 不 会 {k} | {s.en} cannot {k.habit}
{s} 会 {k} 吗 ？ | can {s.en} {k.habit}?
= s e = 110
{s} {e.verb} 过 {e.object} | {s.en} {s.have} {e.tried} before
{s} 没 {e.verb} 过 {e.object} | {s.en} {s.have} never {e.tried}
{s} {e.verb} 过 {e.object} 吗 ？ | {s.have} {s.en} ever {e.tried}?
= s a = 230
{s} {habit} 在 {p} {a} | {s.en} {present} {p.en} {habit.en}
{s} {habit} 在 {p} {a} 吗 ？ | {s.do} {s.en} {a.habit} {p.en} {habit.en}?
{s} 正在 {p} {a} | {s.en} {s.be} {a.ing} {p.en}
{s} {past} 在 {p} {a} 了 | {s.en} {a.past} {p.en} {past.en}
{s} {past} 没 在 {p} {a} | {s.en} did not {a.base} {p.en} {past.en}
{s} {future} 会 在 {p} {a} | {s.en} will {a.base} {p.en} {future.en}
{s} {future} 会 在 {p} {a} 吗 ？ | will {s.en} {a.base} {p.en} {future.en}?
{s} 想 在 {p} {a} | {s.en} want{s.s} to {a.base} {p.en}
{s} 喜欢 在 {p} {a} | {s.en} like{s.s} {a.gerund} {p.en}
= s a = 200
{s} 常常 和 {x} 一起 {a} | {s.en} often {present} with {x.objective}
{s} 想 和 {x} 一起 {a} | {s.en} want{s.s} to {a.base} with {x.objective}
{s} 昨天 和 {x} 一起 {a} 了 | {s.en} {a.past} with {x.objective} yesterday
{s} 明天 会 和 {x} 一起 {a} | {s.en} will {a.base} with {x.objective} tomorrow
= a past future habit = 80
谁 {past} {a} 了 ？ | who {a.past} {past.en}?
谁 {future} 会 {a} ？ | who will {a.base} {future.en}?
谁 {habit} {a} ？ | who {a.third} {habit.en}?
谁 在 {a} ？ | who is {a.ing}?
谁 想 {a} ？ | who wants to {a.base}?
谁 喜欢 {a} ？ | who likes {a.gerund}?
= s t = 220
{s} 喜欢 {t} | {s.en} like{s.s} {t.en}
{s} 非常 喜欢 {t} | {s.en} like{s.s} {t.en} very much
{s} 不 喜欢 {t} | {s.en} {s.do} not like {t.en}
{s} 喜欢 {t} 吗 ？ | {s.do} {s.en} like {t.en}?
{s} 为什么 喜欢 {t} ？ | why {s.do} {s.en} like {t.en}?
= s l = 500
{s} 爱 {l} | {s.en} love{s.s} {l.en}
{s} 也 爱 {l} | {s.en} also love{s.s} {l.en}
= s i = 150
{s} 对 {i} 感 兴趣 | {s.en} {s.be} interested in {i.en}
{s} 对 {i} 不 感 兴趣 | {s.en} {s.be} not interested in {i.en}
{s} 对 {i} 感 兴趣 吗 ？ | {s.be} {s.en} interested in {i.en}?
= s x = 90
{s} 认识 {x} | {s.en} know{s.s} {x.objective}
{s} 不 认识 {x} | {s.en} {s.do} not know {x.objective}
{s} 认识 {x} 吗 ？ | {s.do} {s.en} know {x.objective}?
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
= s goal = 80
{s} {habit} 去 {goal} | {s.en} go{s.es} to {goal.en} {habit.en}
{s} {habit} 去 {goal} 吗 ？ | {s.do} {s.en} go to {goal.en} {habit.en}?
{s} {past} 去 {goal} 了 | {s.en} went to {goal.en} {past.en}
{s} {past} 没 去 {goal} | {s.en} did not go to {goal.en} {past.en}
{s} {past} 去 {goal} 了 吗 ？ | did {s.en} go to {goal.en} {past.en}?
{s} {future} 会 去 {goal} | {s.en} will go to {goal.en} {future.en}
{s} {future} 不 会 去 {goal} | {s.en} will not go to {goal.en} {future.en}
{s} {future} 要 去 {goal} 吗 ？ | {s.be} {s.en} going to go to {goal.en} {future.en}?
{s} 想 去 {goal} | {s.en} want{s.s} to go to {goal.en}
{s} 平时 怎么 去 {goal} ？ | how {s.do} {s.en} usually go to {goal.en}?
{s} 每天 {v} 去 {goal} | {s.en} go{s.es} to {goal.en} {v.en} every day
{s} {past} {v} 去 {goal} 了 | {s.en} went to {goal.en} {v.en} {past.en}
{s} {future} 会 {v} 去 {goal} | {s.en} will go to {goal.en} {v.en} {future.en}
{s} 现在 在 {goal} | {s.en} {s.be} at {goal.en} now
{s} 现在 不 在 {goal} | {s.en} {s.be} not at {goal.en} now
{s} 现在 在 {goal} 吗 ？ | {s.be} {s.en} at {goal.en} now?
{s} {past} 在 {goal} | {s.en} {s.was} at {goal.en} {past.en}
= s c = 90
{s} 去 过 {c} | {s.en} {s.have} been to {c.en}
{s} 没 去 过 {c} | {s.en} {s.have} never been to {c.en}
{s} 去 过 {c} 吗 ？ | {s.have} {s.en} ever been to {c.en}?
{s} 住 在 {c} | {s.en} live{s.s} in {c.en}
{s} 住 在 {c} 吗 ？ | {s.do} {s.en} live in {c.en}?
{s} 以前 住 在 {c} | {s.en} used to live in {c.en}
{s} 想 去 {c} | {s.en} want{s.s} to go to {c.en}
{s} 不 想 去 {c} | {s.en} {s.do} not want to go to {c.en}
{s} {past} 去 {c} 了 | {s.en} went to {c.en} {past.en}
{s} {future} 要 去 {c} | {s.en} {s.be} going to go to {c.en} {future.en}
= s r h = 160
{s} 每天 {h} {r} | {s.en} {present} at {h.en} every day
{s} 平时 {h} {r} | {s.en} usually {present} at {h.en}
{s} 每天 {h} {r} 吗 ？ | {s.do} {s.en} {r.habit} at {h.en} every day?
{s} 明天 要 {h} {r} | {s.en} {s.be} going to {r.habit} at {h.en} tomorrow
{s} 每天 几 点 {r} ？ | what time {s.do} {s.en} {r.habit} every day?
{s} 明天 几 点 {r} ？ | what time will {s.en} {r.habit} tomorrow?
= s j = 150
{s} 很 {j} | {s.en} {s.be} {j.en}
{s} 非常 {j} | {s.en} {s.be} very {j.en}
{s} 不 {j} | {s.en} {s.be} not {j.en}
{s} 不 太 {j} | {s.en} {s.be} not very {j.en}
{s} {j} 吗 ？ | {s.be} {s.en} {j.en}?
= s x lasting = 200
{s} 比 {x} {lasting} | {s.en} {s.be} {lasting.more} than {x.objective}
{s} 没有 {x} {lasting} | {s.en} {s.be} not as {lasting.en} as {x.objective}
{s} 比 {x} {lasting} 吗 ？ | {s.be} {s.en} {lasting.more} than {x.objective}?
= s passing upset = 100
{s} {recent} 很 {passing} | {s.en} {s.was} {passing.en} {recent.en}
{s} {recent} 不 {passing} | {s.en} {s.was} not {passing.en} {recent.en}
{s} {recent} {passing} 吗 ？ | {s.was} {s.en} {passing.en} {recent.en}?
{s} 今天 有点儿 {upset} | {s.en} {s.be} a little {upset.en} today
{s} 今天 为什么 这么 {passing} ？ | why {s.be} {s.en} so {passing.en} today?
{s} 看 起来 很 {passing} | {s.en} look{s.s} {passing.en}
= s job = 90
{s} 是 {job} | {s.en} {s.be} {role}
{s} 不 是 {job} | {s.en} {s.be} not {role}
{s} 是 {job} 吗 ？ | {s.be} {s.en} {role}?
{s} 以前 是 {job} | {s.en} used to be {role}
{s} 想 当 {job} | {s.en} want{s.s} to be {role}
= s age = 120
{s} 今年 {age} 岁 | {s.en} {s.be} {age.en} years old
{s} 明年 {age} 岁 | {s.en} will be {age.en} years old next year
{s} 今年 几 岁 ？ | how old {s.be} {s.en}?
= s own = 300
{s} 有 {own} | {s.en} {s.have} {own.en}
{s} 需要 {own} | {s.en} need{s.s} {own.en}
= s n = 140
{s} 没有 {n} | {s.en} {s.do} not have {n.one}
{s} 有 {n} 吗 ？ | {s.do} {s.en} have {n.one}?
{s} 不 需要 {n} | {s.en} {s.do} not need {n.one}
{s} 有 几 {n.cl} {n} ？ | how many {n.many} {s.do} {s.en} have?
= s buy = 300
{s} {past} 买 了 {buy} | {s.en} bought {buy.en} {past.en}
{s} {future} 会 买 {buy} | {s.en} will buy {buy.en} {future.en}
{s} 想 买 {buy} | {s.en} want{s.s} to buy {buy.en}
= s x gift = 250
{s} 昨天 给 了 {x} {gift} | {s.en} gave {x.objective} {gift.en} yesterday
{s} 明天 会 给 {x} {gift} | {s.en} will give {x.objective} {gift.en} tomorrow
{s} 想 给 {x} {gift} | {s.en} want{s.s} to give {x.objective} {gift.en}
= s drink = 130
{s} {past} 喝 了 {drink} | {s.en} drank {drink.en} {past.en}
{s} 想 喝 {drink} | {s.en} want{s.s} to drink {drink.en}
{s} 每天 喝 {drink} | {s.en} drink{s.s} {drink.en} every day
= s dish = 110
{s} {past} 吃 了 {dish} | {s.en} ate {dish.en} {past.en}
{s} 想 吃 {dish} | {s.en} want{s.s} to eat {dish.en}
{s} 每天 吃 {dish} | {s.en} eat{s.s} {dish.en} every day
= x order = 250
请 给 {x} {order} | please give {x.objective} {order.en}
= spot q = 300
{spot} 有 {q} | there {q.be} {q.en} {spot.en}
{spot} 有 {q} 吗 ？ | {q.be} there {q.en} {spot.en}?
= spot thing = 200
{spot} 没有 {thing} | there are no {thing.many} {spot.en}
{spot} 有 几 {thing.cl} {thing} ？ | how many {thing.many} are there {spot.en}?
= o n spot = 150
{o} 的 {n} 在 {spot} | {o.en} {n.en} is {spot.en}
{o} 的 {n} 在 {spot} 吗 ？ | is {o.en} {n.en} {spot.en}?
= d o n = 90
{d} 是 {o} 的 {n} | {d.en} is {o.en} {n.en}
{d} 不 是 {o} 的 {n} | {d.en} is not {o.en} {n.en}
{d} 是 {o} 的 {n} 吗 ？ | is {d.en} {o.en} {n.en}?
{d} 是 谁 的 {n} ？ | whose {n.en} is {d.en}?
{d} {n.cl} {n} 是 {o} 的 | {d.en} {n.en} is {o.absolute}
{d}些 {n} 是 {o} 的 吗 ？ | are {d.tags} {n.many} {o.absolute}?
{o} 的 {n} 在 哪儿 ？ | where is {o.en} {n.en}?
= d o n look size = 110
{d} {n.cl} {n} 很 {look} | {d.en} {n.en} is {look.en}
{d} {n.cl} {n} 不 {look} | {d.en} {n.en} is not {look.en}
{d} {n.cl} {n} {look} 吗 ？ | is {d.en} {n.en} {look.en}?
{d}些 {n} 很 {look} | {d.tags} {n.many} are {look.en}
{d}些 {n} 都 不 {look} | none of {d.tags} {n.many} are {look.en}
{o} 的 {n} 很 {look} | {o.en} {n.en} is {look.en}
{o} 的 {n} {look} 吗 ？ | is {o.en} {n.en} {look.en}?
{o} 的 {n} 太 {size} 了 | {o.en} {n.en} is too {size.en}
这 {n.cl} {n} 比 那 {n.cl} {look} | this {n.en} is {look.more} than that one
= d ware price = 300
{d} {ware.cl} {ware} {price} 块 钱 | {d.en} {ware.en} costs {price.en} yuan
{d} {ware.cl} {ware} 多少 钱 ？ | how much is {d.en} {ware.en}?
= here there = 130
{here} 在 {there} {side} | {here.en} is {side.en} {there.en}
{here} 在 {there} {side} 吗 ？ | is {here.en} {side.en} {there.en}?
{here} 离 {there} 很 远 | {here.en} is far from {there.en}
{here} 离 {there} 不 远 | {here.en} is not far from {there.en}
{here} 离 {there} 远 吗 ？ | is {here.en} far from {there.en}?
= c w rain past future = 60
{c} 今天 很 {w} | it is {w.en} in {c.en} today
{c} 今天 不 {w} | it is not {w.en} in {c.en} today
{c} 今天 {w} 吗 ？ | is it {w.en} in {c.en} today?
{c} {past} 很 {w} | it was {w.en} in {c.en} {past.en}
{c} {future} 会 很 {w} | it will be {w.en} in {c.en} {future.en}
{c} {past} {rain} 了 | it {rain.en}ed in {c.en} {past.en}
{c} {past} 没 {rain} | it did not {rain.en} in {c.en} {past.en}
{c} {future} 会 {rain} | it will {rain.en} in {c.en} {future.en}
{c} {future} 不 会 {rain} | it will not {rain.en} in {c.en} {future.en}
{c} {future} 会 {rain} 吗 ？ | will it {rain.en} in {c.en} {future.en}?
{c} 正在 {rain} | it is {rain.en}ing in {c.en}
= o month = 80
{o} 的 生日 在 {month} | {o.en} birthday is in {month.en}
{o} 的 生日 不 在 {month} | {o.en} birthday is not in {month.en}
{o} 的 生日 在 {month} 吗 ？ | is {o.en} birthday in {month.en}?
= - = 100
今天 是 {weekday} | today is {weekday.en}
今天 是 {weekday} 吗 ？ | is today {weekday.en}?
昨天 是 {weekday} | yesterday was {weekday.en}
明天 是 {weekday} | tomorrow is {weekday.en}
现在 {h} | it is {h.en}
{site} 在 哪儿 ？ | where is {site.en}?
{fixed} | {fixed.en}
"""
