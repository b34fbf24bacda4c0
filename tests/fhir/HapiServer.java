import ca.uhn.fhir.batch2.jobs.config.Batch2JobsConfig;
import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.context.support.IValidationSupport;
import ca.uhn.fhir.interceptor.api.Hook;
import ca.uhn.fhir.interceptor.api.Interceptor;
import ca.uhn.fhir.interceptor.api.Pointcut;
import ca.uhn.fhir.jpa.api.config.JpaStorageSettings;
import ca.uhn.fhir.jpa.api.config.ThreadPoolFactoryConfig;
import ca.uhn.fhir.jpa.batch2.JpaBatch2Config;
import ca.uhn.fhir.jpa.config.HapiJpaConfig;
import ca.uhn.fhir.jpa.config.r4.JpaR4Config;
import ca.uhn.fhir.jpa.config.util.HapiEntityManagerFactoryUtil;
import ca.uhn.fhir.jpa.model.config.PartitionSettings;
import ca.uhn.fhir.jpa.model.config.SubscriptionSettings;
import ca.uhn.fhir.jpa.model.dialect.HapiFhirH2Dialect;
import ca.uhn.fhir.jpa.provider.IJpaSystemProvider;
import ca.uhn.fhir.jpa.search.DatabaseBackedPagingProvider;
import ca.uhn.fhir.jpa.subscription.channel.config.SubscriptionChannelConfig;
import ca.uhn.fhir.jpa.subscription.match.deliver.email.IEmailSender;
import ca.uhn.fhir.jpa.subscription.submit.config.SubscriptionSubmitterConfig;
import ca.uhn.fhir.rest.server.RestfulServer;
import ca.uhn.fhir.rest.server.exceptions.AuthenticationException;
import ca.uhn.fhir.rest.server.interceptor.RequestValidatingInterceptor;
import ca.uhn.fhir.rest.server.provider.ResourceProviderFactory;
import jakarta.persistence.EntityManagerFactory;
import jakarta.servlet.http.HttpServletRequest;
import java.util.Properties;
import javax.sql.DataSource;
import org.apache.commons.dbcp2.BasicDataSource;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.hl7.fhir.common.hapi.validation.validator.FhirInstanceValidator;
import org.springframework.beans.factory.config.ConfigurableListableBeanFactory;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Import;
import org.springframework.orm.jpa.JpaTransactionManager;
import org.springframework.orm.jpa.LocalContainerEntityManagerFactoryBean;

/**
 * A HAPI FHIR R4 server on 127.0.0.1: the URL of its H2 database, its port, a bearer token or an empty text, and perhaps
 * `validate`, to refuse what is no valid R4. Below `/fhir` it takes the ids of its clients, below `/ids` it chooses all.
 */
public final class HapiServer {
    public static void main(String[] arguments) throws Exception {
        System.setProperty("hapi.database", arguments[0]);
        AnnotationConfigApplicationContext context = new AnnotationConfigApplicationContext(Parts.class);
        RestfulServer fhir = new RestfulServer(context.getBean(FhirContext.class));
        fhir.registerProviders(context.getBean(ResourceProviderFactory.class).createProviders());
        fhir.registerProvider(context.getBean(IJpaSystemProvider.class));
        fhir.setPagingProvider(context.getBean(DatabaseBackedPagingProvider.class));
        fhir.registerInterceptor(new Ids(context.getBean(JpaStorageSettings.class)));
        String token = arguments[2];
        if (!token.isEmpty()) {
            fhir.registerInterceptor(new Doorkeeper("Bearer " + token));
        }
        if (arguments.length > 3) {
            RequestValidatingInterceptor validator = new RequestValidatingInterceptor();
            validator.addValidatorModule(new FhirInstanceValidator(context.getBean(IValidationSupport.class)));
            fhir.registerInterceptor(validator);
        }
        ServletContextHandler handler = new ServletContextHandler("/");
        ServletHolder servlet = new ServletHolder(fhir);
        handler.addServlet(servlet, "/fhir/*");
        handler.addServlet(servlet, "/ids/*");
        Server server = new Server();
        ServerConnector connector = new ServerConnector(server);
        connector.setHost("127.0.0.1");
        connector.setPort(Integer.parseInt(arguments[1]));
        server.addConnector(connector);
        server.setHandler(handler);
        server.start();
        System.out.println("ready " + connector.getLocalPort());
        server.join();
    }

    @Interceptor
    public record Doorkeeper(String expected) {
        @Hook(Pointcut.SERVER_INCOMING_REQUEST_PRE_PROCESSED)
        public boolean admit(HttpServletRequest request) {
            if (!expected.equals(request.getHeader("Authorization"))) {
                throw new AuthenticationException();
            }
            return true;
        }
    }

    /** Who chooses them is asked at each write. */
    @Interceptor
    public record Ids(JpaStorageSettings settings) {
        @Hook(Pointcut.SERVER_INCOMING_REQUEST_PRE_PROCESSED)
        public boolean choose(HttpServletRequest request) {
            settings.setResourceClientIdStrategy(
                    request.getServletPath().equals("/ids")
                            ? JpaStorageSettings.ClientIdStrategyEnum.NOT_ALLOWED
                            : JpaStorageSettings.ClientIdStrategyEnum.ALPHANUMERIC);
            return true;
        }
    }

    @Configuration
    @Import({
        JpaR4Config.class, HapiJpaConfig.class, JpaBatch2Config.class, Batch2JobsConfig.class,
        SubscriptionSubmitterConfig.class, SubscriptionChannelConfig.class,
        ThreadPoolFactoryConfig.class,
    })
    static class Parts {
        @Bean
        DataSource dataSource() {
            BasicDataSource source = new BasicDataSource();
            source.setDriver(new org.h2.Driver());
            source.setUrl(System.getProperty("hapi.database"));
            source.setMaxTotal(20);
            source.setMaxIdle(20);
            // H2 itself remembers no more than eight statements of a connection.
            source.setPoolPreparedStatements(true);
            source.setMaxOpenPreparedStatements(500);
            return source;
        }

        @Bean
        LocalContainerEntityManagerFactoryBean entityManagerFactory(
                ConfigurableListableBeanFactory beans, FhirContext fhir, DataSource source, JpaStorageSettings settings) {
            LocalContainerEntityManagerFactoryBean factory =
                    HapiEntityManagerFactoryUtil.newEntityManagerFactory(beans, fhir, settings);
            factory.setPersistenceUnitName("hapi");
            factory.setDataSource(source);
            Properties properties = new Properties();
            properties.put("hibernate.dialect", HapiFhirH2Dialect.class.getName());
            properties.put("hibernate.hbm2ddl.auto", "update");
            properties.put("hibernate.search.enabled", "false");
            // As the server that HAPI's authors publish.
            properties.put("hibernate.jdbc.batch_size", "20");
            properties.put("hibernate.cache.use_query_cache", "false");
            properties.put("hibernate.cache.use_second_level_cache", "false");
            factory.setJpaProperties(properties);
            return factory;
        }

        @Bean
        JpaTransactionManager transactionManager(EntityManagerFactory factory) {
            return new JpaTransactionManager(factory);
        }

        @Bean
        JpaStorageSettings storageSettings() {
            JpaStorageSettings settings = new JpaStorageSettings();
            settings.setSchedulingDisabled(true);
            return settings;
        }

        @Bean
        PartitionSettings partitionSettings() {
            return new PartitionSettings();
        }

        @Bean
        IEmailSender emailSender() {
            return details -> {};
        }

        @Bean
        SubscriptionSettings subscriptionSettings() {
            return new SubscriptionSettings();
        }
    }
}
