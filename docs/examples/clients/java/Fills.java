import com.fasterxml.jackson.databind.ObjectMapper;
import java.math.BigDecimal;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.sql.DriverManager;
import java.time.Duration;
import java.time.Instant;
import java.time.LocalDate;
import java.time.ZoneOffset;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.apache.avro.Conversions;
import org.apache.avro.Schema;
import org.apache.avro.data.TimeConversions;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/** Keeps a table of fills: reads drx.prescriptions.v1 from its start, and applies each event once. */
public class Fills {
    static final String TABLE = """
        create table if not exists fills_java (source text, id text, prescription_id text, fill_number int,
            status text, quantity numeric(12, 3), fill_date date, occurred_at timestamptz, primary key (source, id))""";
    static final String INSERT = "insert into fills_java values (?, ?, ?, ?, ?, ?, ?, ?) on conflict do nothing";

    static final ObjectMapper JSON = new ObjectMapper();
    static final HttpClient HTTP = HttpClient.newHttpClient();
    static final Map<Integer, Schema> SCHEMAS = new HashMap<>();
    static final GenericData TYPES = new GenericData();

    static {
        TYPES.addLogicalTypeConversion(new Conversions.DecimalConversion()); // BigDecimal
        TYPES.addLogicalTypeConversion(new TimeConversions.DateConversion()); // LocalDate
        TYPES.addLogicalTypeConversion(new TimeConversions.TimestampMicrosConversion()); // Instant
    }

    public static void main(String[] arguments) throws Exception {
        var stack = JSON.readTree(Path.of("stack/endpoints.json").toFile());
        var at = URI.create(stack.get("postgres").asText()); // postgresql://user:password@host:port/database
        var login = at.getUserInfo().split(":", 2);
        var jdbc = "jdbc:postgresql://%s:%d%s".formatted(at.getHost(), at.getPort(), at.getPath());
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", stack.get("bootstrap_servers").asText(),
            "group.id", "fills-java",
            "auto.offset.reset", "earliest",
            "enable.auto.commit", false);
        try (var database = DriverManager.getConnection(jdbc, login[0], login[1]);
                var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer())) {
            database.createStatement().execute(TABLE);
            database.setAutoCommit(false);
            var insert = database.prepareStatement(INSERT);
            consumer.subscribe(List.of("drx.prescriptions.v1"));
            while (true) {
                for (var record : consumer.poll(Duration.ofSeconds(1))) {
                    if (!header(record, "ce_type").equals("fill.status_changed")) {
                        continue;
                    }
                    var fill = decode(record.value(), stack.get("registry").asText());
                    insert.setString(1, header(record, "ce_source"));
                    insert.setString(2, header(record, "ce_id"));
                    insert.setString(3, Objects.toString(fill.get("prescription_id"), null));
                    insert.setInt(4, (Integer) fill.get("fill_number")); // 0 is the original fill
                    insert.setString(5, fill.get("fill_status").toString());
                    insert.setBigDecimal(6, (BigDecimal) fill.get("quantity_dispensed"));
                    insert.setObject(7, (LocalDate) fill.get("fill_date"));
                    insert.setObject(8, ((Instant) fill.get("occurred_at")).atOffset(ZoneOffset.UTC));
                    insert.executeUpdate();
                }
                database.commit();
                consumer.commitSync(); // after the work, never before
            }
        }
    }

    /** Of several headers of one name the last counts. */
    static String header(ConsumerRecord<?, ?> record, String name) {
        var header = record.headers().lastHeader(name);
        return header == null ? "" : new String(header.value(), StandardCharsets.UTF_8);
    }

    static GenericRecord decode(byte[] value, String registry) throws Exception {
        int id = ByteBuffer.wrap(value).getInt(1); // after a byte 0
        if (!SCHEMAS.containsKey(id)) {
            var address = URI.create(registry + "/schemas/ids/" + id);
            var answer = HTTP.send(HttpRequest.newBuilder(address).build(), BodyHandlers.ofString());
            SCHEMAS.put(id, new Schema.Parser().parse(JSON.readTree(answer.body()).get("schema").asText()));
        }
        var schema = SCHEMAS.get(id);
        var body = DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, null);
        return new GenericDatumReader<GenericRecord>(schema, schema, TYPES).read(null, body);
    }
}
