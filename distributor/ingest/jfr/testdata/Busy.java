import java.util.ArrayList;
import java.util.List;

/** Burns CPU in burn, allocates in allocate, fights for a lock in contend; a few seconds in all. */
public class Busy {
    static volatile long sink;
    static final Object lock = new Object();

    static long burn(int rounds) {
        long x = 1;
        for (int i = 0; i < rounds; i++) x = x * 6364136223846793005L + 1442695040888963407L;
        return x;
    }

    static long allocate(int n) {
        List<byte[]> kept = new ArrayList<>();
        for (int i = 0; i < n; i++) {
            kept.add(new byte[8192]);
            if (kept.size() > 100) kept.clear();
        }
        return kept.size();
    }

    static void contend(long until) {
        while (System.nanoTime() < until) {
            synchronized (lock) { sink += burn(5_000_000); }
        }
    }

    public static void main(String[] args) throws Exception {
        long until = System.nanoTime() + 2_500_000_000L;
        Thread other = new Thread(() -> contend(until), "other");
        other.start();
        while (System.nanoTime() < until) {
            sink += burn(20_000_000);
            sink += allocate(20_000);
            synchronized (lock) { sink += burn(5_000_000); }
        }
        other.join();
        java.util.concurrent.locks.LockSupport.parkNanos(50_000_000L);
    }
}
