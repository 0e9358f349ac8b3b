// Loaded into a measured process before its program: at the end it writes what the process has used to the file
// named by BENCH_USAGE_FILE, as {"cpuSeconds", "peakBytes"}.
import { readFileSync, writeFileSync } from "node:fs";

process.on("exit", () => {
  const { userCPUTime, systemCPUTime, maxRSS } = process.resourceUsage();
  let peakKilobytes = maxRSS;
  try {
    // The kernel's own maximum; that of resourceUsage may still know the process that started this one.
    peakKilobytes = Number(/VmHWM:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? maxRSS);
  } catch {
    // No /proc here.
  }
  const usage = { cpuSeconds: (userCPUTime + systemCPUTime) / 1e6, peakBytes: peakKilobytes * 1024 };
  writeFileSync(process.env.BENCH_USAGE_FILE, JSON.stringify(usage));
});
