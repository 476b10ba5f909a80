import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.util.SplittableRandom;
import net.openhft.chronicle.bytes.Bytes;
import net.openhft.chronicle.core.io.IOTools;
import net.openhft.chronicle.queue.ChronicleQueue;
import net.openhft.chronicle.queue.ExcerptAppender;
import net.openhft.chronicle.queue.ExcerptTailer;
import net.openhft.chronicle.queue.rollcycles.LargeRollCycles;

/**
 * Writes or reads a Chronicle queue and prints the seconds. Usage: write|read|cold|first directory count size.
 *
 * send directory count size rate: prints "ready", reads when the schedule began (System.nanoTime, the clock of all
 * processes of a machine), sends each message when it is due, with that time in it.
 * receive directory count size: prints "ready" when it listens, then the nanoseconds since each message was due.
 */
public final class ChronicleBench {
    private static final int DIFFERENT = 1024;
    private static final int WARM = 300_000;

    public static void main(String[] arguments) throws Exception {
        String action = arguments[0];
        File directory = new File(arguments[1]);
        int count = Integer.parseInt(arguments[2]);
        int size = Integer.parseInt(arguments[3]);
        if (action.equals("first")) {
            write(directory, 1, size);
            read(directory, 1);
            System.out.println("seconds 0");
            return;
        }
        if (!action.equals("cold")) {
            warm(Math.max(100, size), arguments.length > 4 || action.equals("receive") ? WARM : Math.min(count, WARM));
        }
        if (action.equals("send") || action.equals("receive")) {
            paced(action, directory, count, size, arguments);
            System.exit(0);
        }
        double seconds = action.equals("write") ? write(directory, count, size) : read(directory, count);
        System.out.println("seconds " + seconds);
        System.exit(0);
    }

    private static void warm(int size, int count) throws Exception {
        int most = (int) Math.min(count, 100_000_000L / size + 1);
        File directory = Files.createTempDirectory("chronicle").toFile();
        write(directory, most, size);
        read(directory, most);
        IOTools.deleteDirWithFiles(directory);
    }

    private static ChronicleQueue open(File directory) {
        return ChronicleQueue.singleBuilder(directory).rollCycle(LargeRollCycles.LARGE_DAILY).build();
    }

    private static double write(File directory, int count, int size) {
        SplittableRandom random = new SplittableRandom(1);
        int different = Math.max(1, Math.min(DIFFERENT, 64_000_000 / size));
        Bytes<?>[] values = new Bytes<?>[different];
        for (int number = 0; number < different; number++) {
            byte[] filler = new byte[size];
            random.nextBytes(filler);
            values[number] = Bytes.allocateDirect(size);
            values[number].write(filler);
        }
        try (ChronicleQueue queue = open(directory); ExcerptAppender appender = queue.createAppender()) {
            long started = System.nanoTime();
            for (int number = 0; number < count; number++) {
                appender.writeBytes(values[number % different]);
            }
            return (System.nanoTime() - started) / 1e9;
        }
    }

    private static void paced(String action, File directory, int count, int size, String[] arguments) throws Exception {
        try (ChronicleQueue queue = open(directory)) {
            if (action.equals("send")) {
                send(queue, count, size, Long.parseLong(arguments[4]));
            } else {
                receive(queue, count);
            }
        }
    }

    private static void send(ChronicleQueue queue, int count, int size, long rate) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        Bytes<?> value = Bytes.allocateDirect(size);
        value.writePosition(size);
        try (ExcerptAppender appender = queue.createAppender()) {
            System.out.println("ready");
            long started = Long.parseLong(in.readLine());
            for (long number = 0; number < count; number++) {
                long due = started + number * 1_000_000_000L / rate;
                while (System.nanoTime() < due) {
                    Thread.onSpinWait();
                }
                value.writeLong(0, due);
                appender.writeBytes(value);
            }
        }
    }

    private static void receive(ChronicleQueue queue, int count) {
        Bytes<?> into = Bytes.allocateElasticDirect(1 << 20);
        long[] latencies = new long[count];
        try (ExcerptTailer tailer = queue.createTailer().toEnd()) {
            System.out.println("ready");
            for (int number = 0; number < count; number++) {
                into.clear();
                while (!tailer.readBytes(into)) {
                    Thread.onSpinWait();
                }
                latencies[number] = System.nanoTime() - into.readLong(0);
            }
        }
        StringBuilder line = new StringBuilder();
        for (long latency : latencies) {
            line.append(latency).append(' ');
        }
        System.out.println(line);
    }

    private static double read(File directory, int count) {
        Bytes<?> into = Bytes.allocateElasticDirect(1 << 20);
        try (ChronicleQueue queue = open(directory); ExcerptTailer tailer = queue.createTailer()) {
            long started = System.nanoTime();
            for (int number = 0; number < count; number++) {
                into.clear();
                if (!tailer.readBytes(into)) {
                    throw new IllegalStateException("only " + number + " messages");
                }
            }
            return (System.nanoTime() - started) / 1e9;
        }
    }
}
