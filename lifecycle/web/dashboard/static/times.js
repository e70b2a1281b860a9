// Times in words, kept true while the page stands; countdowns to the end of a lease.
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

export function duration(seconds) {
  const whole = Math.floor(seconds);
  for (const [index, [size, unit]] of UNITS.entries()) {
    if (whole < size) continue;
    const count = Math.floor(whole / size);
    const next = UNITS[index + 1];
    const rest = next ? Math.floor((whole % size) / next[0]) : 0;
    return count < 3 && rest > 0 ? `${count} ${unit} ${rest} ${next[1]}` : `${count} ${unit}`;
  }
  return "0 s";
}

// The server's clock is what times are told against; this machine's may be off.
const offset = Date.parse(document.body.dataset.now ?? new Date().toISOString()) - Date.now();

export function ago(at) {
  const seconds = (Date.now() + offset - at) / 1000;
  if (Math.abs(seconds) < 1) return "now";
  return seconds > 0 ? `${duration(seconds)} ago` : `in ${duration(-seconds)}`;
}

function tell() {
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const text = ago(Date.parse(time.dateTime));
    if (time.textContent !== text) time.textContent = text;
  }
  for (const left of document.querySelectorAll("[data-countdown]")) {
    const seconds = (Date.parse(left.dataset.countdown) - Date.now() - offset) / 1000;
    left.textContent = seconds > 0 ? `${duration(seconds)} left` : `ran out ${duration(-seconds)} ago`;
  }
}

export function keepTime() {
  tell();
  setInterval(tell, 1000);
}
