// Writes the data of the examples, ours and free for any use: chats.jsonl, what a bicycle workshop answers,
// tickets.csv, what people write to it, by what it is about, and preferences.jsonl, its answers beside those
// that help nobody.
//
//   node examples/data/make.mjs

import { writeFileSync } from "node:fs";

/** An answer, and ways to ask for it. */
const facts = [
  [
    "We are open from Tuesday to Saturday, 9 to 18 o'clock.",
    [
      "When are you open?",
      "What are your opening hours?",
      "Can I come on a Monday?",
      "How late are you open?",
    ],
  ],
  [
    "You find us at 12 Canal Street, in the yard behind the bakery.",
    [
      "Where are you?",
      "What is your address?",
      "How do I find the workshop?",
      "Which street are you in?",
    ],
  ],
  [
    "A full service costs 85 euros and takes two days.",
    [
      "What does a full service cost?",
      "How much is a service?",
      "How long does a service take?",
      "I need a service. What do you charge?",
    ],
  ],
  [
    "A flat tyre costs 14 euros with the tube, and you can wait for it.",
    [
      "My tyre is flat. What does that cost?",
      "Do you repair flat tyres?",
      "How much is a new tube?",
      "Can you fix a puncture while I wait?",
    ],
  ],
  [
    "We true a wheel for 22 euros; a new spoke is 3 euros more.",
    [
      "My wheel wobbles. Can you help?",
      "What does it cost to true a wheel?",
      "A spoke is broken. What now?",
      "Do you replace single spokes?",
    ],
  ],
  [
    "New brake pads cost 18 euros a wheel, fitted.",
    [
      "What do brake pads cost?",
      "My brakes squeal. Do I need new pads?",
      "Do you change brake pads?",
      "How much are pads for one wheel?",
    ],
  ],
  [
    "Bleeding a hydraulic brake costs 30 euros and takes a day.",
    [
      "My brake lever feels soft. What can you do?",
      "Do you bleed hydraulic brakes?",
      "How much is it to bleed a brake?",
      "How long does a brake bleed take?",
    ],
  ],
  [
    "A chain and a cassette together cost 65 euros, fitted.",
    [
      "My chain slips. What does a new one cost?",
      "What is the price of a chain and cassette?",
      "Do you fit chains?",
      "How much for a new drivetrain?",
    ],
  ],
  [
    "We lend city bikes for 12 euros a day while yours is here.",
    [
      "Can I borrow a bike meanwhile?",
      "Do you lend bikes?",
      "What does a loan bike cost?",
      "Do you have a replacement bike?",
    ],
  ],
  [
    "Yes, we repair electric bikes, but not their batteries.",
    [
      "Do you repair electric bikes?",
      "Can you look at my e-bike?",
      "Is my e-bike welcome?",
      "Do you fix e-bike batteries?",
    ],
  ],
  [
    "Yes, we take cargo bikes; please call before you come.",
    [
      "Do you take cargo bikes?",
      "Can I bring my cargo bike?",
      "Is there room for a cargo bike?",
      "My cargo bike needs a repair. Do you do that?",
    ],
  ],
  [
    "You can pay in cash or by card, and companies get an invoice.",
    [
      "How can I pay?",
      "Do you take cards?",
      "Can my company get an invoice?",
      "Is cash all right?",
    ],
  ],
  [
    "Please bring the key of your lock if it is on the wheel.",
    [
      "Do I have to bring my lock's key?",
      "What should I bring?",
      "Shall I take the lock off?",
      "Do you need the key?",
    ],
  ],
  [
    "Every repair has a year of warranty; keep the receipt.",
    [
      "Is there a warranty?",
      "How long is a repair guaranteed?",
      "What if the repair fails?",
      "Do I need the receipt?",
    ],
  ],
  [
    "You need no appointment for small repairs; for a service please book on our page.",
    [
      "Do I need an appointment?",
      "Can I just walk in?",
      "How do I book a service?",
      "Where can I book?",
    ],
  ],
  [
    "We write you a message as soon as your bike is ready.",
    [
      "How do I know that my bike is ready?",
      "Will you call me?",
      "When can I pick up my bike?",
      "Do you send a message?",
    ],
  ],
  [
    "We keep a finished bike for two weeks; after that a day costs 2 euros.",
    [
      "How long do you keep my bike?",
      "I am away next week. Can the bike stay?",
      "What if I come late?",
      "Does it cost to leave the bike with you?",
    ],
  ],
  [
    "A new bike has its first check after 200 kilometres, and it is free.",
    [
      "When is the first check of a new bike?",
      "Is the first check free?",
      "My bike is new. Does it need a check?",
      "What does the first check cost?",
    ],
  ],
  [
    "Used bikes start at 180 euros and have half a year of warranty.",
    [
      "Do you sell used bikes?",
      "What does a used bike cost?",
      "Is there a warranty on used bikes?",
      "I look for a cheap bike. What do you have?",
    ],
  ],
  [
    "Children's bikes up to 20 inches are repaired at half the price.",
    [
      "Do you repair children's bikes?",
      "What does a repair of my daughter's bike cost?",
      "Is there a discount for children?",
      "My son's bike is broken. Can you help?",
    ],
  ],
  [
    "Please pump the tyres to the pressure on their side, once a month.",
    [
      "How much air do my tyres need?",
      "How often should I pump my tyres?",
      "What tyre pressure is right?",
      "Where do I see the right pressure?",
    ],
  ],
  [
    "Oil the chain after rain, and wipe off what drips.",
    [
      "How do I care for my chain?",
      "When should I oil the chain?",
      "My chain is rusty after the rain. What shall I do?",
      "How much oil does a chain need?",
    ],
  ],
  [
    "Our course for repairs is on the first Thursday of a month, at 19 o'clock.",
    [
      "Do you give courses?",
      "When is the repair course?",
      "Can I learn to repair my bike?",
      "I want to fix my bike myself. Can you teach me?",
    ],
  ],
  [
    "We collect old tubes and tyres, and they are recycled.",
    [
      "Do you take old tyres?",
      "What happens to old tubes?",
      "Where can I leave my old tyres?",
      "Do you recycle?",
    ],
  ],
];

/** What a message is about, and things that people write then. */
const topics = {
  appointment: [
    [
      "I would like to bring my bike in for a service",
      "could you fit me in before the weekend",
      "is there a free place next Tuesday",
      "I need to move my booking to another day",
      "can I come a day later than we agreed",
      "do you have time for a check this week",
    ],
    [
      "mornings are best for me",
      "any day but Friday works",
      "my old date does not work any more",
      "I can leave the bike overnight",
    ],
  ],
  price: [
    [
      "what would a new chain and cassette cost",
      "the offer is higher than I expected",
      "could you tell me the price before you start",
      "is there a discount for two bikes",
      "how much is it to have a wheel trued",
      "I would like an estimate for new brakes",
    ],
    [
      "please send me the figure first",
      "my budget is about 100 euros",
      "another shop is cheaper",
      "I do not want a surprise at the end",
    ],
  ],
  complaint: [
    [
      "the gears slip again after your repair",
      "the brake still squeals, and I paid for it",
      "my bike came back with a scratch",
      "nobody called me although the bike was ready",
      "the light that you fitted does not work",
      "I waited two weeks for a small repair",
    ],
    [
      "I am rather disappointed",
      "please put this right",
      "this should not happen",
      "I expect it to be done properly",
    ],
  ],
  praise: [
    [
      "the bike rides like new",
      "your mechanic explained everything so well",
      "thank you for the quick help with my flat tyre",
      "the used bike that you sold me is a joy",
      "what a friendly workshop",
      "you found the noise that nobody else could find",
    ],
    [
      "I will be back",
      "my whole family comes to you now",
      "many thanks to the team",
      "keep up the good work",
    ],
  ],
};
const numTickets = 240;

/** Numbers in [0, 1) that depend on nothing but the seed (mulberry32). */
function seeded(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const message = (role, content) => ({ role, content });

export function chats() {
  const asked = facts.flatMap(([answer, questions]) =>
    questions.map((question) => [message("user", question), message("assistant", answer)]),
  );
  // Two questions in one chat: of each fact the first, then the next fact's.
  const twice = facts.map(([answer, [question]], i) => {
    const [nextAnswer, [, nextQuestion]] = facts[(i + 5) % facts.length];
    return [
      ...[message("user", question), message("assistant", answer)],
      ...[message("user", nextQuestion), message("assistant", nextAnswer)],
    ];
  });
  return [...asked, ...twice].map((messages) => `${JSON.stringify({ messages })}\n`).join("");
}

/** Answers that say nothing. */
const brushOffs = [
  "That depends.",
  "I cannot say, please ask somebody else.",
  "Read our website.",
  "We are very busy at the moment, sorry.",
];

export function preferences() {
  const rows = facts.flatMap(([answer, questions], fact) =>
    questions.slice(0, 2).map((question, i) => ({
      prompt: [message("user", question)],
      chosen: [message("assistant", answer)],
      rejected: [message("assistant", brushOffs[(fact + 2 * i) % brushOffs.length])],
    })),
  );
  return rows.map((row) => `${JSON.stringify(row)}\n`).join("");
}

export function tickets() {
  const random = seeded(12);
  const pick = (list) => list[Math.floor(random() * list.length)];
  const greetings = ["Hello,", "Good morning,", "Hi there,", "Dear team,", ""];
  const names = Object.keys(topics);
  const rows = new Set();
  for (let i = 0; rows.size < numTickets; i++) {
    const label = names[i % names.length];
    const [cores, ends] = topics[label];
    const greeting = pick(greetings);
    const core = pick(cores);
    const start = greeting === "" ? core[0].toUpperCase() + core.slice(1) : core;
    const end = random() < 0.6 ? `; ${pick(ends)}` : "";
    rows.add(
      `"${[greeting, `${start}${end}.`].filter((part) => part !== "").join(" ")}",${label}\n`,
    );
  }
  return `text,label\n${[...rows].join("")}`;
}

if (process.argv[1] === import.meta.filename) {
  writeFileSync(new URL("chats.jsonl", import.meta.url), chats());
  writeFileSync(new URL("tickets.csv", import.meta.url), tickets());
  writeFileSync(new URL("preferences.jsonl", import.meta.url), preferences());
}
