import java.io.File;
import java.nio.file.Files;
import java.util.SplittableRandom;
import net.openhft.chronicle.bytes.Bytes;
import net.openhft.chronicle.core.io.IOTools;
import net.openhft.chronicle.queue.ChronicleQueue;
import net.openhft.chronicle.queue.ExcerptAppender;
import net.openhft.chronicle.queue.ExcerptTailer;
import net.openhft.chronicle.queue.rollcycles.LargeRollCycles;

/** Writes or reads a Chronicle queue and prints the seconds. Usage: write|read|cold|first directory count size. */
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
            warm(Math.max(100, size), Math.min(count, WARM));
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
