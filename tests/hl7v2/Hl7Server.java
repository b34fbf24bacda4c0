import ca.uhn.hl7v2.DefaultHapiContext;
import ca.uhn.hl7v2.HL7Exception;
import ca.uhn.hl7v2.HapiContext;
import ca.uhn.hl7v2.app.HL7Service;
import ca.uhn.hl7v2.llp.MinLowerLayerProtocol;
import ca.uhn.hl7v2.model.AbstractGroup;
import ca.uhn.hl7v2.model.Group;
import ca.uhn.hl7v2.model.Message;
import ca.uhn.hl7v2.model.Structure;
import ca.uhn.hl7v2.parser.CanonicalModelClassFactory;
import ca.uhn.hl7v2.protocol.MetadataKeys;
import ca.uhn.hl7v2.protocol.ReceivingApplication;
import ca.uhn.hl7v2.util.StandardSocketFactory;
import ca.uhn.hl7v2.util.Terser;
import ca.uhn.hl7v2.util.idgenerator.InMemoryIDGenerator;
import java.io.IOException;
import java.io.PrintStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.SocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.List;
import java.util.Map;

/**
 * HAPI's HL7 v2 server on 127.0.0.1: its port, and the message codes that it takes, with commas. What it takes it prints
 * in Base64: as it came, and as it was understood, which is encoded anew.
 */
public final class Hl7Server {
    public static void main(String[] arguments) throws Exception {
        HapiContext context = new DefaultHapiContext(new CanonicalModelClassFactory("2.5.1"));
        context.setLowerLayerProtocol(new MinLowerLayerProtocol(true)); // reads in the character set of MSH-18
        context.setSocketFactory(new Loopback());
        context.getParserConfiguration().setIdGenerator(new InMemoryIDGenerator()); // the default one writes a file
        HL7Service server = context.newServer(Integer.parseInt(arguments[0]), false);
        server.registerApplication(new Application(List.of(arguments[1].split(","))));
        server.startAndWait();
        System.out.println("ready");
        server.waitForTermination();
    }

    private static final class Application implements ReceivingApplication<Message> {
        private final List<String> taken;
        private final PrintStream output = new PrintStream(System.out, true, StandardCharsets.US_ASCII);

        Application(List<String> taken) {
            this.taken = taken;
        }

        @Override
        public boolean canProcess(Message message) {
            try {
                return taken.contains(new Terser(message).get("/.MSH-9-1"));
            } catch (HL7Exception problem) {
                return false;
            }
        }

        @Override
        public Message processMessage(Message message, Map<String, Object> metadata) throws HL7Exception {
            refuseExtra(message);
            output.println("took " + base64(metadata.get(MetadataKeys.IN_RAW_MESSAGE)) + " " + base64(message.encode()));
            try {
                return message.generateACK();
            } catch (IOException problem) {
                throw new HL7Exception(problem);
            }
        }

        private static String base64(Object text) {
            return Base64.getEncoder().encodeToString(text.toString().getBytes(StandardCharsets.UTF_8));
        }

        /** HAPI puts a segment that has no place in a message at its end: no application would find it. */
        private static void refuseExtra(Group group) throws HL7Exception {
            if (group instanceof AbstractGroup known && !known.getNonStandardNames().isEmpty()) {
                throw new HL7Exception("segments without a place: " + known.getNonStandardNames());
            }
            for (String name : group.getNames()) {
                for (Structure each : group.getAll(name)) {
                    if (each instanceof Group inner) {
                        refuseExtra(inner);
                    }
                }
            }
        }
    }

    private static final class Loopback extends StandardSocketFactory {
        @Override
        public ServerSocket createServerSocket() throws IOException {
            return new ServerSocket() {
                @Override
                public void bind(SocketAddress endpoint) throws IOException {
                    int port = ((InetSocketAddress) endpoint).getPort();
                    super.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), port));
                }
            };
        }
    }
}
